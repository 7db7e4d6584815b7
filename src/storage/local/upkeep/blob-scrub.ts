import type { ChildDescriptor } from "../../../oci/descriptor.ts";
import type { Digest } from "../../../oci/digest.ts";
import type { Clock } from "../../../telemetry/clock.ts";
import type { BlobRecords } from "../../blob-index.ts";
import { StorageError } from "../../blob-store.ts";
import type { DroppedBlob, ScrubCode } from "../../scrub-report.ts";
import {
  MAX_HOSTED_MANIFEST_BYTES,
  type Pace,
  readBlobFile,
  readManifestContent,
  recordOf,
} from "../blobs/found-blob.ts";
import type { DiskLayout } from "../root/disk-layout.ts";
import {
  type FileStat,
  type FileSystem,
  systemCode,
} from "../root/file-system.ts";
import type { AuditRow, IndexAudit } from "./index-audit.ts";
import type { ScrubFindings } from "./scrub-findings.ts";

export interface BlobScrubOptions {
  readonly layout: DiskLayout;
  readonly fileSystem: FileSystem;
  /** Absent if the index can't be read: blobs are then compared with their names only. */
  readonly index?: {
    readonly audit: IndexAudit;
    readonly rows: Pick<
      BlobRecords,
      "adoptBlob" | "forgetBlob" | "noteVerified"
    >;
  };
  readonly clock: Clock;
  /** Whether the mirror is running: fills and evictions in progress are then not findings. */
  readonly isOnline: boolean;
  readonly pace?: Pace;
  readonly signal?: AbortSignal;
  readonly onDropped?: (dropped: DroppedBlob) => void;
}

interface FoundBlob {
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** Undefined if the blob is too large for a manifest. */
  readonly bytes: Buffer | undefined;
}

/** Verified blobs that are recorded in the index with one write. */
const VERIFIED_PER_WRITE = 256;
/** Errors that say nothing about the blob: it or its root was removed meanwhile, or no descriptor is free. */
const INCONCLUSIVE_CODES = new Set(["ENOENT", "ESTALE", "EMFILE", "ENFILE"]);
/** Bits that a blob of mode 0600 or 0640 does not have. */
const UNSAFE_MODE = 0o137;
/** Those of them that let other users change the bytes. */
const WRITABLE_MODE = 0o022;

/** Compares single blobs with their digests and their rows, and repairs or drops what differs. */
export class BlobScrub {
  readonly #options: BlobScrubOptions;
  readonly #findings: ScrubFindings;
  #blobs = 0;
  #bytes = 0;
  /** Verified blobs that the index does not know of yet. */
  #verified: Digest[] = [];

  constructor(options: BlobScrubOptions, findings: ScrubFindings) {
    this.#options = options;
    this.#findings = findings;
  }

  /** The blobs that were read in full, and their bytes. */
  get counts(): { readonly blobs: number; readonly bytes: number } {
    return { blobs: this.#blobs, bytes: this.#bytes };
  }

  /** Checks the file of a blob, if there is one. */
  async checkFile(digest: Digest): Promise<void> {
    const path = this.#options.layout.blobFile(digest);
    const stat = await this.stat(path);
    if (stat === undefined) return;
    if (!stat.isFile) {
      await this.drop("not-a-blob", digest);
      return;
    }
    await this.#checkMode(digest, path, stat);
    await this.#checkContent(digest, path);
  }

  /** Drops a row whose file is missing. */
  async checkRow({ digest, storedAtMs }: AuditRow): Promise<void> {
    const { index, layout } = this.#options;
    if (index === undefined) return;
    if ((await this.stat(layout.blobFile(digest))) !== undefined) return;
    // An eviction may have removed it meanwhile, or a fill may be replacing it.
    if (this.#isMoving(digest)) return;
    if (index.audit.findRow(digest)?.storedAtMs !== storedAtMs) return;
    await this.drop("file-missing", digest);
  }

  /** Removes the bytes and the row of a blob that can't be served, so that the next pull fetches it. */
  async drop(code: ScrubCode, digest: Digest): Promise<void> {
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

  /** Records the verified blobs. If the write fails they are verified again another time. */
  async recordVerified(): Promise<void> {
    if (this.#verified.length === 0) return;
    const verified = this.#verified;
    this.#verified = [];
    const { index, clock } = this.#options;
    await index?.rows
      .noteVerified(verified, clock.nowMs())
      .catch(() => undefined);
  }

  /** @returns undefined if there is no such file */
  async stat(path: string): Promise<FileStat | undefined> {
    try {
      return await this.#options.fileSystem.statPath(path);
    } catch (error) {
      const code = systemCode(error);
      if (code === "ENOENT" || code === "ENOTDIR") return undefined;
      throw new StorageError(`reading the status of ${path}`, code, {
        cause: error,
      });
    }
  }

  async #checkMode(
    digest: Digest,
    path: string,
    { mode, linkCount }: FileStat,
  ): Promise<void> {
    // The mode of a file that was linked from another program's folder is that program's.
    if ((mode & UNSAFE_MODE) === 0 || linkCount > 1) return;
    const { fileSystem } = this.#options;
    if ((mode & WRITABLE_MODE) === 0) {
      // Of a file whose name in that folder was removed since; the root is private.
      await this.#findings.repairSilently(() => fileSystem.makePrivate(path));
      return;
    }
    await this.#findings.reportBlob("blob-mode", digest, () =>
      fileSystem.makePrivate(path),
    );
  }

  async #checkContent(digest: Digest, path: string): Promise<void> {
    const { fileSystem, index, pace, signal } = this.#options;
    let content;
    try {
      content = await readBlobFile(fileSystem, path, digest, {
        ...(pace === undefined ? {} : { pace }),
        ...(signal === undefined ? {} : { signal }),
        // Hosted manifests may be larger than mirrored ones.
        ...(index?.audit.findRow(digest)?.mediaType === undefined
          ? {}
          : { maxWholeBytes: MAX_HOSTED_MANIFEST_BYTES }),
      });
    } catch (error) {
      if (signal?.aborted === true) throw error;
      if (INCONCLUSIVE_CODES.has(systemCode(error))) return;
      await this.drop("blob-unreadable", digest);
      return;
    }
    this.#blobs += 1;
    this.#bytes += content.sizeBytes;
    if (content.digest !== digest) {
      await this.drop("blob-corrupt", digest);
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
    this.#verified.push(digest);
    if (this.#verified.length > VERIFIED_PER_WRITE) await this.recordVerified();
  }

  /** Adds a row for a correct blob that the index does not have. */
  async #adopt({ digest, sizeBytes, bytes }: FoundBlob): Promise<void> {
    const { index, clock, layout } = this.#options;
    if (index === undefined || this.#isMoving(digest)) return;
    if (index.audit.findRow(digest) !== undefined) return;
    if ((await this.stat(layout.blobFile(digest))) === undefined) return;
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

  #isMoving(digest: Digest): boolean {
    const { isOnline, index } = this.#options;
    return isOnline && index?.audit.isMoving(digest) === true;
  }
}

/** Returns the same text for equal sets of edges. */
function edgeText(children: readonly ChildDescriptor[]): string {
  return children
    .map(({ digest, sizeBytes, mediaType, role, isForeign }) =>
      [digest, sizeBytes, mediaType, role, isForeign].join(" "),
    )
    .sort()
    .join("\n");
}
