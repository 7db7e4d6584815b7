import { join } from "node:path";
import {
  type Digest,
  DIGEST_ALGORITHMS,
  type DigestAlgorithm,
  parseDigest,
} from "../../../oci/digest.ts";
import type { Clock } from "../../../telemetry/clock.ts";
import type { BlobRecords } from "../../blob-index.ts";
import { StorageError } from "../../blob-store.ts";
import type { IndexState } from "../../metadata-index.ts";
import type { ScrubCode, ScrubReport } from "../../scrub-report.ts";
import {
  BOOT_ID_NAME,
  type DiskLayout,
  parsePartialName,
} from "../root/disk-layout.ts";
import { type FileSystem, systemCode } from "../root/file-system.ts";
import { BlobScrub, type BlobScrubOptions } from "./blob-scrub.ts";
import type { AuditRow, IndexAudit } from "./index-audit.ts";
import { ScrubFindings } from "./scrub-findings.ts";

/** The parts of an open storage root that a scrub works on. */
export interface ScrubParts {
  readonly layout: DiskLayout;
  readonly fileSystem: FileSystem;
  readonly index: {
    readonly audit: IndexAudit;
    readonly rows: Pick<
      BlobRecords,
      "adoptBlob" | "forgetBlob" | "noteVerified"
    > &
      Pick<IndexState, "totals">;
  };
  readonly clock: Clock;
}

export interface ScrubOptions extends BlobScrubOptions {
  /** Whether findings are repaired; they are reported in any case. */
  readonly isRepair: boolean;
}

const PAGE_ROWS = 256;
/** How far the clock that wrote a time and the one that reads it may differ on one machine. */
const TIME_TOLERANCE_MS = 1_000;

/** Compares every blob with its digest, and the index with the files on disk. */
export class Scrub {
  readonly #options: ScrubOptions;
  readonly #findings: ScrubFindings;
  readonly #blobs: BlobScrub;

  constructor(options: ScrubOptions) {
    this.#options = options;
    this.#findings = new ScrubFindings(options.layout, options.isRepair);
    this.#blobs = new BlobScrub(options, this.#findings);
  }

  get report(): ScrubReport {
    return { ...this.#blobs.counts, findings: this.#findings.all };
  }

  /** Adds the finding that the file of the index is damaged; the caller detected and repaired it. */
  noteDamage(repaired: boolean): void {
    this.#findings.note("index-damaged", this.#options.layout.indexFile, {
      repaired,
    });
  }

  /**
   * Scrubs the whole root.
   *
   * @throws StorageError, SQLite's errors, the signal's reason
   */
  async run(): Promise<ScrubReport> {
    for (const algorithm of DIGEST_ALGORITHMS) {
      await this.#checkFolder(algorithm);
    }
    await this.#checkRows();
    if (!this.#options.isOnline) await this.#checkPartials();
    await this.#blobs.recordVerified();
    await this.#checkIndex();
    return this.report;
  }

  /** Scrubs one blob that has a row. */
  async checkBlob(row: AuditRow): Promise<void> {
    await this.#blobs.checkFile(row.digest);
    await this.#blobs.checkRow(row);
    await this.#blobs.recordVerified();
  }

  /** Drops a blob that a reader found damaged. */
  dropBlob(
    code: "blob-corrupt" | "blob-unreadable",
    digest: Digest,
  ): Promise<void> {
    return this.#blobs.drop(code, digest);
  }

  async #checkFolder(algorithm: DigestAlgorithm): Promise<void> {
    const { layout, fileSystem, signal } = this.#options;
    const folder = layout.blobFolder(algorithm);
    try {
      await fileSystem.eachName(folder, async (names) => {
        for (const name of names) {
          signal?.throwIfAborted();
          const digest = parseDigest(`${algorithm}:${name}`);
          if (digest === undefined) {
            await this.#remove("not-a-blob", join(folder, name), undefined);
          } else {
            await this.#blobs.checkFile(digest);
          }
        }
      });
    } catch (error) {
      // The folder could not be created on a full disk, or was removed: it holds no blobs.
      if (systemCode(error) === "ENOENT") return;
      if (signal?.aborted === true) throw error;
      throw new StorageError(`listing ${folder}`, systemCode(error), {
        cause: error,
      });
    }
  }

  async #checkRows(): Promise<void> {
    const { index, signal } = this.#options;
    if (index === undefined) return;
    let rows = index.audit.listRows(0, PAGE_ROWS);
    for (
      let last = rows.at(-1);
      last !== undefined;
      rows = index.audit.listRows(last.id, PAGE_ROWS), last = rows.at(-1)
    ) {
      for (const row of rows) {
        signal?.throwIfAborted();
        await this.#blobs.checkRow(row);
      }
    }
  }

  async #checkIndex(): Promise<void> {
    const { index, layout, clock } = this.#options;
    if (index === undefined) return;
    const { health } = index.audit;
    const report = (code: ScrubCode, repair: () => void): Promise<void> =>
      this.#findings.report(code, layout.indexFile, undefined, () => {
        repair();
        return Promise.resolve();
      });
    if (health.findBrokenReferences().length > 0) {
      await report("reference-broken", () => health.deleteBrokenReferences());
    }
    const { kept, counted } = health.compareTotals();
    const keys = [
      "blobs",
      "blobBytes",
      "manifests",
      "tags",
      "lists",
      "listBytes",
      "hostedBytes",
      "hostedLinks",
    ] as const;
    if (keys.some((key) => kept[key] !== counted[key])) {
      await report("totals-differ", () => health.putTotals(counted));
    }
    const nowMs = Math.ceil(clock.nowMs()) + TIME_TOLERANCE_MS;
    if (health.countTimesAfter(nowMs) > 0) {
      await report("time-ahead", () => health.capTimes(nowMs));
    }
  }

  async #checkPartials(): Promise<void> {
    const { layout, fileSystem } = this.#options;
    let names: readonly string[] = [];
    try {
      names = await fileSystem.list(layout.partialFolder);
    } catch (error) {
      if (systemCode(error) !== "ENOENT") throw error;
    }
    for (const name of names) {
      if (name === BOOT_ID_NAME) continue;
      const path = join(layout.partialFolder, name);
      const key = parsePartialName(name);
      const stat = await this.#blobs.stat(path);
      if (stat === undefined || (key !== undefined && stat.isFile)) continue;
      await this.#remove("partial-stray", path, parseDigest(key ?? ""));
    }
  }

  #remove(
    code: ScrubCode,
    path: string,
    digest: Digest | undefined,
  ): Promise<void> {
    return this.#findings.report(code, path, digest, () =>
      this.#options.fileSystem.removeTree(path),
    );
  }
}
