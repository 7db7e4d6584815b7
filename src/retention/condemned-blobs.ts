import { setImmediate as nextTurn } from "node:timers/promises";
import type { Digest } from "../oci/digest.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { HotManifests } from "../storage/hot-manifests.ts";
import type { CondemnedBlob, RetentionIndex } from "../storage/root-index.ts";
import type { TrackedBlobStore } from "../storage/tracked-blob-store.ts";

/** Files removed concurrently, and rows dropped in one transaction. */
const BLOBS_PER_STEP = 8;

export interface CondemnedBlobsOptions {
  readonly index: Pick<
    RetentionIndex,
    "listCondemned" | "forgetCondemned" | "releaseCondemned" | "isHosted"
  >;
  readonly blobs: TrackedBlobStore;
  readonly hot?: HotManifests;
  readonly log: Pick<Logger, "warn">;
}

/** The blobs that a purge removed. */
export interface Purged {
  readonly blobs: number;
  readonly bytes: number;
  /** Whether no further blob can be removed now. */
  readonly isEnd: boolean;
}

/** Removes the bytes of blobs that no root needs, then their rows. */
export class CondemnedBlobs {
  readonly #options: CondemnedBlobsOptions;

  constructor(options: CondemnedBlobsOptions) {
    this.#options = options;
  }

  /**
   * Removes condemned blobs that are idle, level by level.
   *
   * @param isStopped checked before each step
   */
  async purge(isStopped: () => boolean): Promise<Purged> {
    const { index } = this.#options;
    const except = new Set<Digest>();
    let [blobs, bytes] = [0, 0];
    for (;;) {
      // Checked before the list, because listed blobs count as being removed.
      if (isStopped()) return { blobs, bytes, isEnd: false };
      const found = await index.listCondemned(BLOBS_PER_STEP, except);
      if (found.length === 0) return { blobs, bytes, isEnd: true };
      for (const { sizeBytes } of await this.#remove(found, except)) {
        blobs += 1;
        bytes += sizeBytes;
      }
      await nextTurn();
    }
  }

  /**
   * Removes the idle ones of the listed blobs.
   *
   * @param except receives the others
   * @returns the removed ones
   */
  async #remove(
    found: readonly CondemnedBlob[],
    except: Set<Digest>,
  ): Promise<readonly CondemnedBlob[]> {
    const { index, blobs, hot, log } = this.#options;
    const claim = blobs.claim(found.map(({ digest }) => digest));
    const idle = new Set(claim.keys);
    const gone: CondemnedBlob[] = [];
    const intact: Digest[] = [];
    try {
      await Promise.all(
        found.map(async (blob) => {
          const { digest } = blob;
          if (!idle.has(digest)) {
            intact.push(digest);
            return;
          }
          hot?.delete(digest);
          try {
            await blobs.remove(digest);
            gone.push(blob);
          } catch (error) {
            intact.push(digest);
            log.warn(
              { err: error, digest },
              "a condemned blob could not be removed",
            );
          }
        }),
      );
      for (const digest of intact) except.add(digest);
      const reports = await Promise.allSettled([
        index.forgetCondemned(gone.map(({ digest }) => digest)),
        // A hosted repository may need them again.
        intact.length > 0 ? index.releaseCondemned(intact) : undefined,
      ]);
      for (const report of reports) {
        if (report.status === "rejected") throw report.reason;
      }
    } finally {
      claim.release();
    }
    return gone;
  }

  /**
   * Removes only the files, for an index that can't be written; the rows stay. Blobs of hosted
   * repositories are kept, and all of them if the index can't be read either.
   */
  async removeFiles(digests: readonly Digest[]): Promise<void> {
    const { index, blobs, hot } = this.#options;
    const claim = blobs.claim(digests);
    try {
      for (const digest of claim.keys) {
        if (await index.isHosted(digest).catch(() => true)) continue;
        hot?.delete(digest);
        await blobs.remove(digest);
      }
    } finally {
      claim.release();
    }
  }
}
