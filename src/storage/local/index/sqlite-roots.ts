import type { Database } from "better-sqlite3";
import type { Digest } from "../../../oci/digest.ts";
import type { Reference, RepositoryKey, Tag } from "../../../oci/reference.ts";
import { bytesOf, digestFrom, pathOf } from "./index-keys.ts";
import { LostPins } from "./lost-pins.ts";
import type { RootName } from "../../root-index.ts";
import { NOBODYS_PATH, RootLists } from "./root-lists.ts";
import {
  prepareRootStatements,
  type RootStatements,
} from "./root-statements.ts";

/** Indexes of indexes above a manifest; engines follow fewer. */
const MAX_DEPTH = 4;
/** Indexes that name one manifest, of those that are touched with it. */
const MAX_INDEXES_ABOVE = 64;

/** The roots' share of the SQLite index. Runs in the caller's transactions. */
export class SqliteRoots {
  readonly lists: RootLists;
  readonly #statements: RootStatements;
  readonly #lostPins: LostPins;
  readonly #nobodyId: number;

  constructor(database: Database) {
    this.#statements = prepareRootStatements(database);
    this.lists = new RootLists(this.#statements);
    this.#lostPins = new LostPins(database);
    this.#nobodyId = database
      .prepare("SELECT id FROM repositories WHERE path = ?")
      .pluck()
      .get(NOBODYS_PATH) as number;
  }

  // --- kept up by whatever is written ----------------------------------------------------------

  /** A blob was recorded, or linked to a repository. */
  onStored(blobId: number, repositoryId: number, atMs: number): void {
    this.#statements.putUnnamedRoot.run({
      blobId,
      repositoryId,
      usedAtMs: atMs,
      isPinned: 0,
    });
  }

  /** A blob was found stored; whoever asks for it takes it over. */
  onAdopted(blobId: number, atMs: number): void {
    this.#statements.putUnheldRoot.run({
      blobId,
      repositoryId: this.#nobodyId,
      usedAtMs: atMs,
    });
  }

  /** A manifest's edges are written, and its link where a repository is given. */
  onManifest(manifestId: number): void {
    const { listManifestRootsBelow, listBlobRootsBelow, deleteRoot } =
      this.#statements;
    const below = [
      ...listManifestRootsBelow.all(manifestId),
      ...listBlobRootsBelow.all(manifestId, this.#nobodyId),
    ];
    for (const { blobId, repositoryId } of below) {
      deleteRoot.run(blobId, repositoryId);
    }
  }

  /** A manifest is stored and linked: a pin that was lost with it is in force again. */
  onManifestLinked(
    manifestId: number,
    repositoryId: number,
    digest: Digest,
    usedAtMs: number,
  ): void {
    const reference = { kind: "digest", digest } as const;
    if (!this.#lostPins.take(repositoryId, reference)) return;
    this.#statements.putUnnamedRoot.run({
      blobId: manifestId,
      repositoryId,
      usedAtMs,
      isPinned: 1,
    });
  }

  /**
   * The tag points to the manifest now, and did to another before.
   *
   * @returns whether a pin that was lost is in force again
   */
  onTagPut(
    repositoryId: number,
    tag: Tag,
    manifestId: number,
    before:
      { readonly manifestId: number; readonly usedAtMs: number } | undefined,
  ): boolean {
    const isPinnedAgain = this.#lostPins.take(repositoryId, {
      kind: "tag",
      tag,
    });
    if (isPinnedAgain) this.#statements.pinTag.run(1, repositoryId, tag);
    this.#statements.deleteNamedRoot.run(
      manifestId,
      repositoryId,
      this.#nobodyId,
    );
    if (before !== undefined && before.manifestId !== manifestId) {
      this.onStored(before.manifestId, repositoryId, before.usedAtMs);
    }
    return isPinnedAgain;
  }

  getTagHold(key: RepositoryKey, tag: Tag) {
    return this.#statements.getTagHold.get(pathOf(key), tag);
  }

  /** The upstream has the tag no more: its digest is kept, and stays pinned where the tag was. */
  onTagRemoved(hold: {
    readonly repositoryId: number;
    readonly manifestId: number;
    readonly usedAtMs: number;
    readonly isPinned: 0 | 1;
  }): void {
    this.#statements.putUnnamedRoot.run({
      blobId: hold.manifestId,
      repositoryId: hold.repositoryId,
      usedAtMs: hold.usedAtMs,
      isPinned: hold.isPinned,
    });
  }

  /**
   * The row of a blob is about to go because its bytes are gone. Its pins stay.
   *
   * @returns to be called once it has: what only that manifest needed is kept for its own sake
   */
  beforeForgotten(digest: Digest): () => void {
    const blob = this.#statements.findBlob.get(bytesOf(digest));
    if (blob?.isManifest === 1) this.#lostPins.keepThoseOf(blob.id, digest);
    const children =
      blob === undefined || blob.isManifest === 0
        ? []
        : this.#statements.listStoredChildren.all(blob.id);
    const named =
      blob === undefined
        ? []
        : [blob, ...this.#statements.listNamedIds.all(blob)];
    return () => {
      for (const { id } of named) {
        this.#statements.deleteUnusedDigest.run({ id });
      }
      for (const { id, usedAtMs } of children) {
        this.#statements.putUnheldRoot.run({
          blobId: id,
          repositoryId:
            this.#statements.findLinkedRepository.get(id)?.repositoryId ??
            this.#nobodyId,
          usedAtMs,
        });
      }
    };
  }

  /** A digest that nothing names any more, for what it was noted did not happen. */
  dropUnusedName(digest: Digest): void {
    const found = this.#statements.findDigestId.get(bytesOf(digest));
    if (found !== undefined) this.#statements.deleteUnusedDigest.run(found);
  }

  /** Every tag of the repository that points to the same manifest was used with it. */
  touchTag(path: string, tag: string, atMs: number): void {
    const hold = this.#statements.getTagHold.get(path, tag);
    if (hold === undefined) return;
    this.#statements.touchTagsOf.run(atMs, hold.manifestId, hold.repositoryId);
  }

  /** A blob that is a root by itself was read. */
  touchBlob(digest: Digest, atMs: number): void {
    this.#statements.touchRootsOfBlob.run(atMs, bytesOf(digest));
  }

  touchManifest(repositoryId: number, digest: Digest, atMs: number): void {
    const { findBlob, touchTagsOf, touchRoot, listIndexesAbove } =
      this.#statements;
    const blob = findBlob.get(bytesOf(digest));
    if (blob === undefined) return;
    const seen = new Set([blob.id]);
    let level = [blob.id];
    for (let depth = 0; depth <= MAX_DEPTH && level.length > 0; depth++) {
      const next: number[] = [];
      for (const id of level) {
        touchTagsOf.run(atMs, id, repositoryId);
        touchRoot.run(atMs, id, repositoryId);
        for (const above of listIndexesAbove.all({
          id,
          repositoryId,
          limit: MAX_INDEXES_ABOVE,
        })) {
          if (!seen.has(above.id)) next.push(above.id);
          seen.add(above.id);
        }
      }
      level = next;
    }
  }

  // --- pins and the way out --------------------------------------------------------------------

  setPinned(
    key: RepositoryKey,
    repositoryId: number | undefined,
    reference: Reference,
    isPinned: boolean,
  ): boolean {
    if (repositoryId === undefined) return false;
    const wasLost = this.#lostPins.take(repositoryId, reference);
    const isThere = this.#setPinnedRoot(key, repositoryId, reference, isPinned);
    if (wasLost && !isThere && isPinned) {
      this.#lostPins.keep(repositoryId, reference);
    }
    return isThere || wasLost;
  }

  keepLostPin(repositoryId: number, reference: Reference): void {
    this.#lostPins.keep(repositoryId, reference);
  }

  lostPins(limit: number): readonly RootName[] {
    return this.#lostPins.list(limit);
  }

  #setPinnedRoot(
    key: RepositoryKey,
    repositoryId: number,
    reference: Reference,
    isPinned: boolean,
  ): boolean {
    const flag = isPinned ? 1 : 0;
    if (reference.kind === "tag") {
      const { changes } = this.#statements.pinTag.run(
        flag,
        repositoryId,
        reference.tag,
      );
      return changes > 0;
    }
    const blob = this.#statements.findBlob.get(bytesOf(reference.digest));
    if (
      blob?.isManifest !== 1 ||
      this.#statements.isLinked.get(blob.id, repositoryId) === undefined
    ) {
      return false;
    }
    const usedAtMs = this.lists.get(key, reference)?.usedAtMs ?? blob.usedAtMs;
    if (isPinned) {
      this.#statements.putUnnamedRoot.run({
        blobId: blob.id,
        repositoryId,
        usedAtMs,
        isPinned: 1,
      });
      return true;
    }
    this.#statements.deleteRoot.run(blob.id, repositoryId);
    this.onStored(blob.id, repositoryId, usedAtMs);
    return true;
  }

  drop(
    key: RepositoryKey,
    repositoryId: number | undefined,
    reference: Reference,
    usedAtMs: number | undefined,
  ): boolean {
    if (repositoryId === undefined) return false;
    const root = this.lists.get(key, reference);
    if (root === undefined) {
      return (
        usedAtMs === undefined && this.#lostPins.take(repositoryId, reference)
      );
    }
    if (
      usedAtMs !== undefined &&
      (root.isPinned || root.usedAtMs !== usedAtMs)
    ) {
      return false;
    }
    const blob = this.#statements.findBlob.get(bytesOf(root.digest));
    if (blob === undefined) return false;
    if (reference.kind === "tag") {
      this.#statements.deleteTag.run(repositoryId, reference.tag);
    } else {
      this.#statements.deleteRoot.run(blob.id, repositoryId);
    }
    this.#statements.condemnUnheld.run({ id: blob.id });
    return true;
  }

  condemned(
    limit: number,
    except: ReadonlySet<Digest>,
  ): { digest: Digest; sizeBytes: number }[] {
    const found: { digest: Digest; sizeBytes: number }[] = [];
    let after = 0;
    for (;;) {
      const rows = this.#statements.listCondemned.all(after, limit);
      for (const row of rows) {
        after = row.id;
        const digest = digestFrom(row.digest);
        if (row.isNeeded === 1) this.#statements.pardon.run(row.id);
        else if (!except.has(digest)) {
          found.push({ digest, sizeBytes: row.sizeBytes });
        }
      }
      if (found.length > 0 || rows.length < limit) {
        return found;
      }
    }
  }

  forgetCondemned(digests: readonly Digest[]): void {
    const statements = this.#statements;
    for (const digest of digests) {
      const blob = statements.findBlob.get(bytesOf(digest));
      if (blob === undefined) continue;
      // Needed and pinned again while its bytes went.
      if (blob.isManifest === 1) this.#lostPins.keepThoseOf(blob.id, digest);
      const children = statements.listNamedIds.all(blob);
      statements.deleteBlobById.run(blob.id);
      statements.deleteUnusedDigest.run(blob);
      for (const child of children) {
        statements.condemnUnheld.run(child);
        statements.deleteUnusedDigest.run(child);
      }
    }
  }
}
