import { setImmediate as nextTurn } from "node:timers/promises";
import type { ChildDescriptor } from "../../../oci/descriptor.ts";
import {
  type Digest,
  DIGEST_ALGORITHMS,
  parseDigest,
} from "../../../oci/digest.ts";
import type { RepositoryKey, Tag } from "../../../oci/reference.ts";
import { type FileStat, systemCode } from "../root/file-system.ts";
import {
  readBlobFile,
  readManifestContent,
  recordOf,
} from "../blobs/found-blob.ts";
import { pathOf } from "../index/index-keys.ts";
import type { BlobRecords } from "../../blob-index.ts";
import type { ImageIndex, PinIndex, RetentionIndex } from "../../root-index.ts";
import type { TagIndex } from "../../tag-index.ts";
import type { IndexAudit } from "./index-audit.ts";
import type { RebuildWait } from "./rebuild-wait.ts";
import type { JournalRoot } from "./journal-lines.ts";
import type { RootParts } from "./settle-intents.ts";
import { MAX_MANIFEST_BYTES } from "../../../oci/manifest.ts";

export interface ReconcileParts extends RootParts {
  readonly index: RootParts["index"] &
    Pick<BlobRecords, "adoptBlob" | "forgetBlob"> &
    Pick<ImageIndex, "getRoot"> &
    Pick<PinIndex, "keepLostPin" | "setPinned"> &
    Pick<RetentionIndex, "forgetCondemned"> &
    Pick<TagIndex, "getTag" | "putTag">;
  readonly audit: IndexAudit;
  readonly roots: readonly JournalRoot[];
  /** Present if requests wait for the roots. */
  readonly rebuild?: RebuildWait | undefined;
  readonly signal: AbortSignal;
}

export interface Reconciled {
  /** Tags that were restored from the journal. */
  restoredTags: number;
  /** Files that received a row. */
  adoptedBlobs: number;
  /** Deleted rows without a file. */
  droppedBlobs: number;
}

/** Work between two turns of the event loop for requests. */
const ROWS_PER_TURN = 64;
const PAGE_ROWS = 256;
/** The depth to which completeness follows an image. */
const MAX_DEPTH = 5;

/**
 * Makes the index and the blobs consistent after a crash. An index that is missing, was moved aside
 * or is an older copy receives the roots of the journal, the graphs below them with their links, and
 * rows of all other blobs. Rows whose file is missing are deleted. Runs concurrently with requests,
 * which do the same for the content that they need.
 *
 * Names of files are trusted, because bytes are hashed and synced before the rename. Manifests are
 * hashed nevertheless: they are small, and everything else depends on them.
 *
 * @throws the signal's reason, StorageError, IndexError
 */
export async function reconcile(parts: ReconcileParts): Promise<Reconciled> {
  const run = new Reconciliation(parts);
  try {
    await run.restoreRoots();
  } finally {
    parts.rebuild?.end();
  }
  await run.adoptFiles();
  await run.dropRows();
  return run.result;
}

class Reconciliation {
  readonly result: Reconciled = {
    restoredTags: 0,
    adoptedBlobs: 0,
    droppedBlobs: 0,
  };
  readonly #parts: ReconcileParts;
  /** Manifests whose children were restored with them, as in `docker.io/library/alpine@sha256:…`. */
  readonly #restored = new Set<string>();
  #sinceTurn = 0;

  constructor(parts: ReconcileParts) {
    this.#parts = parts;
  }

  async restoreRoots(): Promise<void> {
    const { roots, rebuild } = this.#parts;
    // The newest digests first: an index is stored after its children, and restores them.
    const digests = roots.filter((root) => !isTag(root)).toReversed();
    const inTurn = [...roots.filter(isTag), ...digests];
    rebuild?.expect(inTurn);
    for (const next of inTurn) {
      for (
        let wanted = rebuild?.takeWanted();
        wanted !== undefined;
        wanted = rebuild?.takeWanted()
      ) {
        await this.#restoreRoot(wanted);
        rebuild?.noteRestored(wanted);
      }
      if (rebuild?.isPending(next) === false) continue;
      await this.#restoreRoot(next);
      rebuild?.noteRestored(next);
    }
  }

  async #restoreRoot(root: JournalRoot): Promise<void> {
    const { index } = this.#parts;
    await this.#yieldTurn();
    const { key, reference, isPinned } = root;
    const isStored =
      reference.kind === "tag"
        ? await this.#restoreTag(root, reference.tag)
        : await this.#restoreDigest(root);
    if (isStored === undefined) return;
    if (isPinned && !isStored) await index.keepLostPin(key, reference);
    const found = await index.getRoot(key, reference);
    if (found !== undefined && found.isPinned !== isPinned) {
      await index.setPinned(key, reference, isPinned);
    }
  }

  /** @returns whether the tag agrees with the journal; undefined if the index is newer */
  async #restoreTag(
    { key, digest, mediaType, atMs, isPinned }: JournalRoot,
    tag: Tag,
  ): Promise<boolean | undefined> {
    const { index } = this.#parts;
    if (digest === undefined) return isPinned ? false : undefined;
    const known = await index.getTag(key, tag);
    if (known?.digest === digest) return true;
    // The journal is written after the index.
    if ((known?.fetchedAtMs ?? 0) > atMs) return undefined;
    if (!(await this.#restoreGraph(key, digest, mediaType))) {
      // The tag may have an older manifest; the pin belongs to the tag.
      return known !== undefined;
    }
    await index.putTag(key, tag, digest, atMs);
    this.result.restoredTags += 1;
    return true;
  }

  /** @returns whether the digest is stored; undefined if it is not pinned or no longer a root */
  async #restoreDigest({
    key,
    digest,
    mediaType,
    isPinned,
  }: JournalRoot): Promise<boolean | undefined> {
    if (digest === undefined) return isPinned ? false : undefined;
    if (this.#restored.has(restoredKey(key, digest))) return true;
    const isStored = await this.#restoreGraph(key, digest, mediaType);
    return isStored || isPinned ? isStored : undefined;
  }

  async adoptFiles(): Promise<void> {
    const { layout, fileSystem, audit } = this.#parts;
    for (const algorithm of DIGEST_ALGORITHMS) {
      const visit = async (names: readonly string[]): Promise<void> => {
        for (const name of names) {
          await this.#yieldTurn();
          const digest = parseDigest(`${algorithm}:${name}`);
          if (digest === undefined || audit.isKnown(digest)) continue;
          await this.#adopt(digest);
        }
      };
      await fileSystem
        .eachName(layout.blobFolder(algorithm), visit)
        .catch((error: unknown) => {
          if (systemCode(error) !== "ENOENT") throw error;
        });
    }
  }

  async dropRows(): Promise<void> {
    const { index, audit } = this.#parts;
    let rows = audit.listRows(0, PAGE_ROWS);
    for (
      let last = rows.at(-1);
      last !== undefined;
      rows = audit.listRows(last.id, PAGE_ROWS), last = rows.at(-1)
    ) {
      for (const { digest, storedAtMs } of rows) {
        await this.#yieldTurn();
        if ((await this.#stat(digest)) !== undefined) continue;
        // Another request may have deleted or replaced the row.
        if (audit.findRow(digest)?.storedAtMs !== storedAtMs) continue;
        // A kill may have ended a removal between file and row: content that only it needed is removed too.
        if (audit.isCondemned(digest)) await index.forgetCondemned([digest]);
        else await index.forgetBlob(digest);
        this.result.droppedBlobs += 1;
      }
    }
  }

  /**
   * Restores level by level and visits each manifest once, at its smallest depth. The cost is then
   * proportional to the number of manifests, however often indexes name each other.
   *
   * @returns whether the manifest is stored
   */
  async #restoreGraph(
    key: RepositoryKey,
    digest: Digest,
    mediaType: string | undefined,
  ): Promise<boolean> {
    const top = await this.#restoreManifest(key, digest, mediaType);
    const seen = new Set([digest]);
    let level = top ?? [];
    if (top !== undefined) this.#restored.add(restoredKey(key, digest));
    for (let depth = 1; depth <= MAX_DEPTH && level.length > 0; depth += 1) {
      const next: ChildDescriptor[] = [];
      for (const child of level) {
        await this.#yieldTurn();
        if (seen.has(child.digest)) continue;
        const below = await this.#restoreManifest(
          key,
          child.digest,
          child.mediaType,
        );
        if (below === undefined) continue;
        // Only stored manifests are remembered; the number of names is not bounded.
        seen.add(child.digest);
        if (depth < MAX_DEPTH) {
          this.#restored.add(restoredKey(key, child.digest));
        }
        next.push(...below);
      }
      level = next;
    }
    return top !== undefined;
  }

  /** @returns the manifests that it names; undefined if it is not stored */
  async #restoreManifest(
    key: RepositoryKey,
    digest: Digest,
    mediaType: string | undefined,
  ): Promise<readonly ChildDescriptor[] | undefined> {
    const { layout, fileSystem, index, clock } = this.#parts;
    const stat = await this.#stat(digest);
    if (stat?.isFile !== true || stat.sizeBytes > MAX_MANIFEST_BYTES) {
      return undefined;
    }
    const content = await readBlobFile(
      fileSystem,
      layout.blobFile(digest),
      digest,
    );
    const manifest = readManifestContent(content.bytes, mediaType);
    if (content.digest !== digest || manifest === undefined) return undefined;
    await index.recordBlob(
      key,
      recordOf(digest, content.sizeBytes, clock.nowMs(), manifest),
    );
    for (const child of manifest.children) {
      if (child.role === "manifest") continue;
      await this.#yieldTurn();
      const file = await this.#stat(child.digest);
      if (file?.isFile !== true || file.sizeBytes !== child.sizeBytes) continue;
      await index.recordBlob(
        key,
        recordOf(child.digest, file.sizeBytes, clock.nowMs(), undefined),
      );
    }
    return manifest.children.filter(({ role }) => role === "manifest");
  }

  async #adopt(digest: Digest): Promise<void> {
    const { layout, fileSystem, index, audit, clock } = this.#parts;
    const stat = await this.#stat(digest);
    if (stat?.isFile !== true) return;
    let manifest;
    if (stat.sizeBytes <= MAX_MANIFEST_BYTES) {
      const content = await readBlobFile(
        fileSystem,
        layout.blobFile(digest),
        digest,
      ).catch(() => undefined);
      if (content?.digest !== digest) return;
      manifest = readManifestContent(
        content.bytes,
        audit.findEdgeMediaType(digest),
      );
    }
    // A fill may have recorded it meanwhile.
    if (audit.isKnown(digest)) return;
    await index.adoptBlob(
      recordOf(digest, stat.sizeBytes, clock.nowMs(), manifest),
    );
    this.result.adoptedBlobs += 1;
  }

  async #stat(digest: Digest): Promise<FileStat | undefined> {
    const { layout, fileSystem } = this.#parts;
    try {
      return await fileSystem.statPath(layout.blobFile(digest));
    } catch (error) {
      const code = systemCode(error);
      if (code === "ENOENT" || code === "ENOTDIR") return undefined;
      throw error;
    }
  }

  async #yieldTurn(): Promise<void> {
    this.#parts.signal.throwIfAborted();
    this.#sinceTurn += 1;
    if (this.#sinceTurn % ROWS_PER_TURN === 0) await nextTurn();
  }
}

function isTag({ reference }: JournalRoot): boolean {
  return reference.kind === "tag";
}

function restoredKey(key: RepositoryKey, digest: Digest): string {
  return `${pathOf(key)}@${digest}`;
}
