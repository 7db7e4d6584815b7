import { join } from "node:path";
import { parseDigest } from "../../../oci/digest.ts";
import type { Clock } from "../../../telemetry/clock.ts";
import type { Logger } from "../../../telemetry/logger.ts";
import { type DiskLayout, parsePartialName } from "../root/disk-layout.ts";
import {
  asStorageError,
  type FileSystem,
  systemCode,
} from "../root/file-system.ts";
import {
  IMPORT_ID_PREFIX,
  parseUploadId,
  type WriteKey,
} from "../../blob-store.ts";
import type { HostedUploads } from "../../hosted-index.ts";
import type { TrackedBlobStore } from "../../tracked-blob-store.ts";

export interface LeftPartialsOptions {
  readonly layout: Pick<DiskLayout, "partialFolder">;
  readonly fileSystem: Pick<FileSystem, "list" | "statPath" | "unlink">;
  readonly blobs: Pick<TrackedBlobStore, "claim" | "isBusy">;
  /** Uploads of the index, which are dropped when they expire. */
  readonly index: Pick<HostedUploads, "getUpload">;
  readonly clock: Clock;
  readonly log: Pick<Logger, "info">;
}

interface LeftPartial {
  readonly key: WriteKey;
  readonly path: string;
  readonly sizeBytes: number;
  readonly modifiedAtMs: number;
}

/** Engines retry within minutes and people within a day; later the tag has moved. */
const KEPT_MS = 24 * 60 * 60 * 1000;

/**
 * Partials that interrupted downloads and uploads left to be resumed. Most are resumed. A partial of a
 * blob that is never requested again would stay forever, outside every limit, because the index counts
 * published blobs only.
 */
export class LeftPartials {
  readonly #options: LeftPartialsOptions;

  constructor(options: LeftPartialsOptions) {
    this.#options = options;
  }

  /**
   * Removes partials that are older than a day, those of imports that were interrupted, and the oldest
   * ones beyond `limitBytes` in total. One that is being written or read stays and is not counted, nor is
   * one of an upload that can be resumed.
   *
   * @throws StorageError if the folder can't be read
   */
  async trim(limitBytes: number): Promise<void> {
    const { blobs, clock } = this.#options;
    let keptBytes = 0;
    for (const partial of await this.#list()) {
      if (blobs.isBusy(partial.key) || (await this.#isUpload(partial.key))) {
        continue;
      }
      const isOld = clock.nowMs() - partial.modifiedAtMs > KEPT_MS;
      const isUseless = partial.key.startsWith(IMPORT_ID_PREFIX);
      if (isOld || isUseless || keptBytes + partial.sizeBytes > limitBytes) {
        await this.#remove(partial);
      } else {
        keptBytes += partial.sizeBytes;
      }
    }
  }

  /** While the index can't answer, every upload counts as one that can be resumed. */
  async #isUpload(key: WriteKey): Promise<boolean> {
    const id = parseUploadId(key);
    if (id === undefined) return false;
    return this.#options.index.getUpload(id).then(
      (row) => row !== undefined,
      () => true,
    );
  }

  /** Returns the newest first. */
  async #list(): Promise<readonly LeftPartial[]> {
    const { layout, fileSystem } = this.#options;
    const partials: LeftPartial[] = [];
    try {
      for (const name of await fileSystem.list(layout.partialFolder)) {
        const key = parsePartialName(name);
        if (key === undefined) continue;
        const path = join(layout.partialFolder, name);
        const stat = await fileSystem.statPath(path).catch(() => undefined);
        if (stat?.isFile === true) partials.push({ key, path, ...stat });
      }
    } catch (error) {
      if (systemCode(error) === "ENOENT") return [];
      throw asStorageError("list", error);
    }
    return partials.sort((a, b) => b.modifiedAtMs - a.modifiedAtMs);
  }

  /** One that can't be removed now is found again by the next trim. */
  async #remove({ key, path, sizeBytes }: LeftPartial): Promise<void> {
    const { blobs, fileSystem, log } = this.#options;
    const claim = blobs.claim([key]);
    try {
      // A fill or upload resumed it just now.
      if (claim.keys.length === 0) return;
      await fileSystem.unlink(path);
      const digest = parseDigest(key);
      log.info(
        digest === undefined
          ? { upload: key, sizeBytes }
          : { digest, sizeBytes },
        "removed an abandoned partial",
      );
    } catch {
      // The failing storage is reported by other operations.
    } finally {
      claim.release();
    }
  }
}
