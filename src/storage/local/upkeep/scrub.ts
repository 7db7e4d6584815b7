import { join } from "node:path";
import type { ChildDescriptor } from "../../../oci/descriptor.ts";
import {
  type Digest,
  DIGEST_ALGORITHMS,
  type DigestAlgorithm,
  parseDigest,
} from "../../../oci/digest.ts";
import type { Clock } from "../../../telemetry/clock.ts";
import { StorageError } from "../../blob-store.ts";
import {
  BOOT_ID_NAME,
  type DiskLayout,
  parsePartialName,
} from "../root/disk-layout.ts";
import {
  type FileStat,
  type FileSystem,
  systemCode,
} from "../root/file-system.ts";
import {
  type Pace,
  readBlobFile,
  readManifestContent,
  recordOf,
} from "../blobs/found-blob.ts";
import type { AuditRow, IndexAudit } from "./index-audit.ts";
import type { BlobRecords } from "../../blob-index.ts";
import type {
  DroppedBlob,
  ScrubCode,
  ScrubReport,
} from "../../scrub-report.ts";
import type { MetadataIndex } from "../../metadata-index.ts";
import { ScrubFindings } from "./scrub-findings.ts";

/** The parts of an open storage root that a scrub works on. */
export interface ScrubParts {
  readonly layout: DiskLayout;
  readonly fileSystem: FileSystem;
  readonly index: { readonly audit: IndexAudit; readonly rows: MetadataIndex };
  readonly clock: Clock;
}

export interface ScrubOptions {
  readonly layout: DiskLayout;
  readonly fileSystem: FileSystem;
  /** Absent: the index can't be read, and the blobs are compared with their names only. */
  readonly index?: {
    readonly audit: IndexAudit;
    readonly rows: Pick<
      BlobRecords,
      "adoptBlob" | "forgetBlob" | "noteVerified"
    >;
  };
  readonly clock: Clock;
  readonly isRepair: boolean;
  /** Whether the mirror runs meanwhile: what is on its way is then no finding. */
  readonly isOnline: boolean;
  readonly pace?: Pace;
  readonly signal?: AbortSignal;
  readonly onDropped?: (dropped: DroppedBlob) => void;
}

const PAGE_ROWS = 256;
/** A blob went while it was looked at, its root did, or this process has no descriptors left. */
const SAYS_NOTHING = new Set(["ENOENT", "ESTALE", "EMFILE", "ENFILE"]);
/** Of 0600 and 0640 nothing is in it. */
const UNSAFE_MODE = 0o137;
/** Clocks of one machine differ by so much between a write and a look. */
const TIME_TOLERANCE_MS = 1_000;

/** Compares every blob with its digest, and the index with what is there. */
export class Scrub {
  readonly #options: ScrubOptions;
  readonly #findings: ScrubFindings;
  #blobs = 0;
  #bytes = 0;
  /** Right, and not noted in the index yet. */
  #right: Digest[] = [];

  constructor(options: ScrubOptions) {
    this.#options = options;
    this.#findings = new ScrubFindings(options.layout, options.isRepair);
  }

  get report(): ScrubReport {
    const findings = this.#findings.all;
    return { blobs: this.#blobs, bytes: this.#bytes, findings };
  }

  /** Notes what was found wrong with the index's file, by whoever could look into it. */
  noteDamage(repaired: boolean): void {
    this.#findings.note("index-damaged", this.#options.layout.indexFile, {
      repaired,
    });
  }

  /** All of it. @throws StorageError, SQLite's errors, the signal's reason */
  async run(): Promise<ScrubReport> {
    for (const algorithm of DIGEST_ALGORITHMS) {
      await this.#checkFolder(algorithm);
    }
    await this.#checkRows();
    if (!this.#options.isOnline) await this.#checkPartials();
    await this.#noteVerified(0);
    await this.#checkIndex();
    return this.report;
  }

  /** One blob that the index has. */
  async checkBlob(row: AuditRow): Promise<void> {
    await this.#checkEntry(row.digest);
    await this.#checkRow(row);
    await this.#noteVerified(0);
  }

  /** Takes a blob away that was found wrong elsewhere. */
  dropBlob(
    code: "blob-corrupt" | "blob-unreadable",
    digest: Digest,
  ): Promise<void> {
    return this.#drop(code, digest);
  }

  // --- files -----------------------------------------------------------------------------------

  async #checkFolder(algorithm: DigestAlgorithm): Promise<void> {
    const { layout, fileSystem } = this.#options;
    const folder = layout.blobFolder(algorithm);
    try {
      await fileSystem.eachName(folder, async (names) => {
        for (const name of names) {
          this.#options.signal?.throwIfAborted();
          const digest = parseDigest(`${algorithm}:${name}`);
          if (digest === undefined) {
            await this.#remove("not-a-blob", join(folder, name), undefined);
          } else {
            await this.#checkEntry(digest);
          }
        }
      });
    } catch (error) {
      // There was no room to make it, or somebody took it away: then no blob is in it.
      if (systemCode(error) === "ENOENT") return;
      throw this.#options.signal?.aborted === true
        ? error
        : new StorageError(`listing ${folder}`, systemCode(error), {
            cause: error,
          });
    }
  }

  async #checkEntry(digest: Digest): Promise<void> {
    const { layout } = this.#options;
    const path = layout.blobFile(digest);
    const stat = await this.#stat(path);
    if (stat === undefined) return;
    if (!stat.isFile) {
      await this.#drop("not-a-blob", digest);
      return;
    }
    if ((stat.mode & UNSAFE_MODE) !== 0) {
      await this.#findings.reportBlob("blob-mode", digest, () =>
        this.#options.fileSystem.makePrivate(path),
      );
    }
    await this.#checkContent(digest, path);
  }

  async #checkContent(digest: Digest, path: string): Promise<void> {
    const { fileSystem, index, pace, signal } = this.#options;
    let content;
    try {
      content = await readBlobFile(fileSystem, path, digest, {
        ...(pace === undefined ? {} : { pace }),
        ...(signal === undefined ? {} : { signal }),
      });
    } catch (error) {
      if (signal?.aborted === true) throw error;
      const code = systemCode(error);
      if (SAYS_NOTHING.has(code)) return;
      await this.#drop("blob-unreadable", digest);
      return;
    }
    this.#blobs += 1;
    this.#bytes += content.sizeBytes;
    if (content.digest !== digest) {
      await this.#drop("blob-corrupt", digest);
      return;
    }
    if (index === undefined) return;
    const row = index.audit.findRow(digest);
    const found = {
      digest,
      sizeBytes: content.sizeBytes,
      bytes: content.bytes,
    };
    if (row === undefined) await this.#adopt(found);
    else await this.#compare(row, found);
    this.#right.push(digest);
    await this.#noteVerified(PAGE_ROWS);
  }

  /** @param least so many at a time; an index that takes no writes has them verified again */
  async #noteVerified(least: number): Promise<void> {
    if (this.#right.length <= least) return;
    const right = this.#right;
    this.#right = [];
    const { index, clock } = this.#options;
    await index?.rows.noteVerified(right, clock.nowMs()).catch(() => undefined);
  }

  /** The bytes are right and the index has none of it. */
  async #adopt({ digest, sizeBytes, bytes }: FoundBlob): Promise<void> {
    const { index, clock } = this.#options;
    if (index === undefined || this.#isMoving(digest)) return;
    if (index.audit.findRow(digest) !== undefined) return;
    if (
      (await this.#stat(this.#options.layout.blobFile(digest))) === undefined
    ) {
      return;
    }
    await this.#findings.reportBlob("row-missing", digest, async () => {
      const manifest = readManifestContent(
        bytes,
        index.audit.findEdgeMediaType(digest),
      );
      await index.rows.adoptBlob(
        recordOf(digest, sizeBytes, clock.nowMs(), manifest),
      );
    });
  }

  async #compare(row: AuditRow, found: FoundBlob): Promise<void> {
    const { index } = this.#options;
    if (index === undefined) return;
    const { digest, sizeBytes, bytes } = found;
    const manifest =
      row.mediaType === undefined
        ? undefined
        : readManifestContent(bytes, row.mediaType);
    if (row.sizeBytes !== sizeBytes) {
      await this.#findings.reportBlob("size-differs", digest, () =>
        index.rows.adoptBlob(
          recordOf(digest, sizeBytes, row.storedAtMs, manifest),
        ),
      );
    }
    if (row.mediaType === undefined) return;
    const known = index.audit.readManifest(row.id);
    if (
      manifest !== undefined &&
      manifest.mediaType === row.mediaType &&
      manifest.subject === known.subject &&
      edgeText(manifest.children) === edgeText(known.children)
    ) {
      return;
    }
    await this.#findings.reportBlob("manifest-differs", digest, async () => {
      if (manifest === undefined) await index.rows.forgetBlob(digest);
      await index.rows.adoptBlob(
        recordOf(digest, sizeBytes, row.storedAtMs, manifest),
      );
    });
  }

  // --- the index -------------------------------------------------------------------------------

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
        await this.#checkRow(row);
      }
    }
  }

  async #checkRow({ digest, storedAtMs }: AuditRow): Promise<void> {
    const { index, layout } = this.#options;
    if (index === undefined) return;
    if ((await this.#stat(layout.blobFile(digest))) !== undefined) return;
    // It may have gone since, by an eviction or a fill that takes it over.
    if (this.#isMoving(digest)) return;
    if (index.audit.findRow(digest)?.storedAtMs !== storedAtMs) return;
    await this.#drop("file-missing", digest);
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
      const stat = await this.#stat(path);
      if (stat === undefined || (key !== undefined && stat.isFile)) continue;
      await this.#remove("partial-stray", path, parseDigest(key ?? ""));
    }
  }

  // --- findings --------------------------------------------------------------------------------

  /** A blob that can't be served: its bytes go, and its row with them, so that the next pull fetches it. */
  async #drop(code: ScrubCode, digest: Digest): Promise<void> {
    const { index, fileSystem, layout, onDropped } = this.#options;
    await this.#findings.reportBlob(code, digest, async () => {
      const row = index?.audit.findRow(digest);
      const dropped: DroppedBlob | undefined =
        index === undefined || row === undefined
          ? undefined
          : {
              digest,
              isManifest: row.mediaType !== undefined,
              repositories: index.audit.listRepositories(row.id),
              tags: index.audit.listTagsOf(row.id),
            };
      await fileSystem.removeTree(layout.blobFile(digest));
      if (dropped === undefined) return;
      await index?.rows.forgetBlob(digest);
      onDropped?.(dropped);
    });
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

  #isMoving(digest: Digest): boolean {
    const { isOnline, index } = this.#options;
    return isOnline && index?.audit.isMoving(digest) === true;
  }

  async #stat(path: string): Promise<FileStat | undefined> {
    try {
      return await this.#options.fileSystem.statPath(path);
    } catch (error) {
      const code = systemCode(error);
      if (code === "ENOENT" || code === "ENOTDIR") return undefined;
      throw new StorageError(`looking at ${path}`, code, { cause: error });
    }
  }
}

interface FoundBlob {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly bytes: Buffer | undefined;
}

/** Equal for equal sets of edges. */
function edgeText(children: readonly ChildDescriptor[]): string {
  return children
    .map(({ digest, sizeBytes, mediaType, role, isForeign }) =>
      [digest, sizeBytes, mediaType, role, isForeign].join(" "),
    )
    .sort()
    .join("\n");
}
