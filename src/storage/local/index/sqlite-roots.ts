import type { Database } from "better-sqlite3";
import type { Digest } from "../../../oci/digest.ts";
import type { Reference, RepositoryKey, Tag } from "../../../oci/reference.ts";
import { HostedRoots } from "./hosted-index/hosted-roots.ts";
import { bytesOf, digestFrom, pathOf } from "./index-keys.ts";
import { LostPins } from "./lost-pins.ts";
import type { RootName } from "../../root-index.ts";
import { UNCLAIMED_PATH, RootLists } from "./root-lists.ts";
import {
  prepareRootStatements,
  type RootStatements,
} from "./root-statements.ts";

/** Levels of indexes above a manifest; engines follow fewer. */
const MAX_DEPTH = 4;
/** Indexes above one manifest that count as used with it. */
const MAX_INDEXES_ABOVE = 64;

/** Keeps the rows of roots consistent with blobs, edges and tags. Runs in the caller's transactions. */
export class SqliteRoots {
  readonly lists: RootLists;
  readonly #statements: RootStatements;
  readonly #lostPins: LostPins;
  readonly #hosted: HostedRoots;
  readonly #unclaimedId: number;

  constructor(database: Database) {
    this.#statements = prepareRootStatements(database);
    this.#hosted = new HostedRoots(database);
    this.lists = new RootLists(this.#statements, this.#hosted);
    this.#lostPins = new LostPins(database);
    this.#unclaimedId = database
      .prepare("SELECT id FROM repositories WHERE path = ?")
      .pluck()
      .get(UNCLAIMED_PATH) as number;
  }

  // --- called by writes of hosted repositories -------------------------------------------------

  /** Called after new bytes of a blob were published: an earlier removal has ended. */
  onBytesStored(blobId: number): void {
    this.#statements.pardon.run(blobId);
  }

  /** Called after a holder of the blob was deleted. */
  condemnUnheld(blobId: number): void {
    this.#statements.condemnUnheld.run({ id: blobId });
  }

  /** Removes the lost pin of a tag. @returns whether there was one */
  takeLostPin(repositoryId: number, tag: Tag): boolean {
    return this.#lostPins.take(repositoryId, { kind: "tag", tag });
  }

  isTagPinned(key: RepositoryKey, tag: Tag): boolean {
    return this.getTagHold(key, tag)?.isPinned === 1;
  }

  isHosted(digest: Digest): boolean {
    return this.#hosted.isHostedBlob(bytesOf(digest));
  }

  // --- called by writes ------------------------------------------------------------------------

  /** Called after a blob was recorded, or linked to a repository. */
  onStored(blobId: number, repositoryId: number, atMs: number): void {
    this.#statements.putUnnamedRoot.run({
      blobId,
      repositoryId,
      usedAtMs: atMs,
      isPinned: 0,
    });
  }

  /** Called after a blob was found on disk; it belongs to no repository until a request names it. */
  onAdopted(blobId: number, atMs: number): void {
    this.#statements.putUnheldRoot.run({
      blobId,
      repositoryId: this.#unclaimedId,
      usedAtMs: atMs,
    });
  }

  /** Called after the edges of a manifest, and its link if there is one, were written. */
  onManifest(manifestId: number): void {
    const { listManifestRootsBelow, listBlobRootsBelow, deleteRoot } =
      this.#statements;
    const below = [
      ...listManifestRootsBelow.all(manifestId),
      ...listBlobRootsBelow.all(manifestId, this.#unclaimedId),
    ];
    for (const { blobId, repositoryId } of below) {
      deleteRoot.run(blobId, repositoryId);
    }
  }

  /** Called after a manifest was stored and linked; restores its lost pin. */
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
   * Called after a tag was pointed to a manifest.
   *
   * @returns whether a lost pin of the tag was restored
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
      this.#unclaimedId,
    );
    if (before !== undefined && before.manifestId !== manifestId) {
      this.onStored(before.manifestId, repositoryId, before.usedAtMs);
    }
    return isPinnedAgain;
  }

  getTagHold(key: RepositoryKey, tag: Tag) {
    return this.#statements.getTagHold.get(pathOf(key), tag);
  }

  /** Called after a tag was removed because its upstream no longer has it; its digest stays a root, with the tag's pin. */
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
   * Called before the row of a blob whose bytes are gone is deleted. Keeps its pins.
   *
   * @returns a function to call after the deletion; it makes roots of what only that manifest needed
   */
  beforeForgotten(digest: Digest): () => void {
    const blob = this.#statements.findBlob.get(bytesOf(digest));
    if (blob?.isManifest === 1) this.#lostPins.keepPinsOf(blob.id, digest);
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
            this.#unclaimedId,
          usedAtMs,
        });
      }
    };
  }

  /** Deletes a digest that no row names, for example after its fill failed. */
  dropUnusedName(digest: Digest): void {
    const found = this.#statements.findDigestId.get(bytesOf(digest));
    if (found !== undefined) this.#statements.deleteUnusedDigest.run(found);
  }

  /** Marks as used every tag of the repository that points to the same manifest. */
  touchTag(path: string, tag: string, atMs: number): void {
    const hold = this.#statements.getTagHold.get(path, tag);
    if (hold === undefined) return;
    this.#statements.touchTagsOf.run(atMs, hold.manifestId, hold.repositoryId);
  }

  /** Marks as used the roots of a blob that is not a manifest. */
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

  // --- pins and removal ------------------------------------------------------------------------

  setPinned(
    key: RepositoryKey,
    repositoryId: number | undefined,
    reference: Reference,
    isPinned: boolean,
  ): boolean {
    if (repositoryId === undefined) return false;
    const wasLost = this.#lostPins.take(repositoryId, reference);
    const isCached = this.#setPinnedRoot(
      key,
      repositoryId,
      reference,
      isPinned,
    );
    if (wasLost && !isCached && isPinned) {
      this.#lostPins.keep(repositoryId, reference);
    }
    return isCached || wasLost;
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
    if (this.#isHostedRoot(key, repositoryId, reference, blob.id)) return false;
    if (reference.kind === "tag") {
      this.#statements.deleteTag.run(repositoryId, reference.tag);
    } else {
      this.#statements.deleteRoot.run(blob.id, repositoryId);
    }
    this.#statements.condemnUnheld.run({ id: blob.id });
    return true;
  }

  /** Content of a hosted repository is removed by the writes of hosted repositories only. */
  #isHostedRoot(
    key: RepositoryKey,
    repositoryId: number,
    reference: Reference,
    blobId: number,
  ): boolean {
    return reference.kind === "tag"
      ? this.getTagHold(key, reference.tag)?.isHosted === 1
      : this.#hosted.isHostedLink(blobId, repositoryId);
  }

  /** Lists condemned blobs that nothing needs, and marks them: their removal begins. */
  condemned(
    limit: number,
    except: ReadonlySet<Digest>,
  ): { digest: Digest; sizeBytes: number }[] {
    const { listBeingRemoved, listCondemned, pardon, setBeingRemoved } =
      this.#statements;
    for (const list of [listBeingRemoved, listCondemned]) {
      const found: { digest: Digest; sizeBytes: number }[] = [];
      let after = 0;
      for (;;) {
        const rows = list.all(after, limit);
        for (const { id, isNeeded, sizeBytes, ...row } of rows) {
          after = id;
          const digest = digestFrom(row.digest);
          // The bytes of one whose removal began before may be gone.
          if (isNeeded === 1 && list === listCondemned) pardon.run(id);
          else if (!except.has(digest)) {
            setBeingRemoved.run(1, id);
            found.push({ digest, sizeBytes });
          }
        }
        if (found.length > 0) return found;
        if (rows.length < limit) break;
      }
    }
    return [];
  }

  /** Called if the bytes of listed blobs were not removed. */
  releaseCondemned(digests: readonly Digest[]): void {
    for (const digest of digests) {
      const blob = this.#statements.findBlob.get(bytesOf(digest));
      if (blob !== undefined) this.#statements.setBeingRemoved.run(0, blob.id);
    }
  }

  forgetCondemned(digests: readonly Digest[]): void {
    const statements = this.#statements;
    for (const digest of digests) {
      const blob = statements.findBlob.get(bytesOf(digest));
      if (blob === undefined) continue;
      // It may have been pinned again while its bytes were deleted.
      if (blob.isManifest === 1) this.#lostPins.keepPinsOf(blob.id, digest);
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
