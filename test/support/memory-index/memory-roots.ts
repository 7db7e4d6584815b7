import type { Digest } from "../../../src/oci/digest.ts";
import type {
  Reference,
  RepositoryKey,
  Tag,
} from "../../../src/oci/reference.ts";
import { IndexError } from "../../../src/storage/metadata-index.ts";
import type { CondemnedBlob } from "../../../src/storage/root-index.ts";
import type {
  MemoryTables,
  StoredBlob,
  StoredRepository,
  StoredTag,
} from "./memory-tables.ts";

/** Indexes of indexes above a manifest that count as used with it. */
const MAX_DEPTH = 4;

/** The rules by which content is a root, and stops being one. */
export class MemoryRoots {
  readonly #tables: MemoryTables;

  constructor(tables: MemoryTables) {
    this.#tables = tables;
  }

  // --- for hosted repositories -----------------------------------------------------------------

  /** An earlier removal of the blob has ended. */
  onBytesStored(digest: Digest): void {
    this.#tables.condemned.delete(digest);
    this.#tables.beingRemoved.delete(digest);
  }

  condemnUnheld(digest: Digest): void {
    if (
      this.#tables.blobs.has(digest) &&
      this.#tables.countHolders(digest) === 0
    ) {
      this.#tables.condemned.add(digest);
    }
  }

  // --- after content was stored ----------------------------------------------------------------

  /** Makes a blob a root of the repository unless a tag or a manifest already holds it. */
  onStored(digest: Digest, repository: StoredRepository, atMs: number): void {
    if (repository.hostedLinks.has(digest)) return;
    if (this.#isUnnamed(digest, repository)) {
      putRoot(repository, digest, atMs, false);
    }
  }

  onAdopted(digest: Digest, atMs: number): void {
    this.#putUnheld(digest, this.#tables.unclaimed, atMs);
  }

  /** Removes the roots that a manifest now holds. */
  onManifest({ digest: parent, manifest }: StoredBlob): void {
    for (const child of manifest?.children.keys() ?? []) {
      const isManifest = this.#tables.blobs.get(child)?.manifest !== undefined;
      for (const repository of this.#tables.repositories.values()) {
        const isHeld =
          repository.links.has(parent) ||
          repository === this.#tables.unclaimed ||
          !isManifest;
        if (isHeld) deleteUnpinned(repository, child);
      }
    }
  }

  onManifestLinked(
    digest: Digest,
    repository: StoredRepository,
    atMs: number,
  ): void {
    if (repository.takeLostPin({ kind: "digest", digest })) {
      putRoot(repository, digest, atMs, true);
    }
  }

  putTag(
    repository: StoredRepository,
    tag: Tag,
    digest: Digest,
    times: { readonly verifiedAtMs: number; readonly seenAtMs: number },
  ): void {
    const { verifiedAtMs, seenAtMs } = times;
    if (this.#tables.blobs.get(digest)?.manifest === undefined) {
      throw new IndexError(`putTag: got ${digest}; expected a stored manifest`);
    }
    const before = repository.tags.get(tag);
    repository.tags.set(tag, {
      digest,
      fetchedAtMs:
        before !== undefined && before.digest === digest
          ? before.fetchedAtMs
          : seenAtMs,
      verifiedAtMs,
      usedAtMs: before?.usedAtMs ?? seenAtMs,
      goneAtMs: undefined,
      isPinned:
        repository.takeLostPin({ kind: "tag", tag }) ||
        before?.isPinned === true,
      isHosted: before?.isHosted ?? false,
    });
    deleteUnpinned(repository, digest);
    deleteUnpinned(this.#tables.unclaimed, digest);
    if (before !== undefined && before.digest !== digest) {
      this.onStored(before.digest, repository, before.usedAtMs);
    }
  }

  /** The digest of a removed tag stays a root, and stays pinned if the tag was. */
  removeTag(repository: StoredRepository, tag: Tag): void {
    const removed = repository.tags.get(tag);
    if (removed === undefined || removed.isHosted) return;
    repository.tags.delete(tag);
    const { digest, usedAtMs, isPinned } = removed;
    if (isPinned || this.#isUnnamed(digest, repository)) {
      putRoot(repository, digest, usedAtMs, isPinned);
    }
  }

  /** Drops a blob whose bytes are gone. What only that manifest needed becomes a root. */
  forget(digest: Digest): void {
    const blob = this.#tables.blobs.get(digest);
    if (blob === undefined) return;
    this.#keepPins(blob);
    this.#tables.deleteBlob(digest);
    for (const child of blob.manifest?.children.keys() ?? []) {
      const stored = this.#tables.blobs.get(child);
      if (stored === undefined) continue;
      const [owner = this.#tables.unclaimed] = [
        ...this.#tables.repositories.values(),
      ].filter(({ links }) => links.has(child));
      this.#putUnheld(child, owner, stored.usedAtMs);
    }
  }

  // --- uses ------------------------------------------------------------------------------------

  touchTag(key: RepositoryKey, tag: Tag, atMs: number): void {
    const repository = this.#tables.repository(key);
    const used = repository?.tags.get(tag);
    if (repository === undefined || used === undefined) return;
    touchTagsOf(repository, used.digest, atMs);
  }

  touchBlob(digest: Digest, atMs: number): void {
    const blob = this.#tables.blobs.get(digest);
    if (blob === undefined) return;
    touch(blob, atMs);
    if (blob.manifest !== undefined) return;
    for (const { roots } of this.#tables.repositories.values()) {
      touch(roots.get(digest), atMs);
    }
  }

  touchManifest(key: RepositoryKey, digest: Digest, atMs: number): void {
    touch(this.#tables.blobs.get(digest), atMs);
    const repository = this.#tables.repository(key);
    if (repository === undefined || !this.#tables.blobs.has(digest)) return;
    const seen = new Set([digest]);
    let level = [digest];
    for (let depth = 0; depth <= MAX_DEPTH && level.length > 0; depth++) {
      const next: Digest[] = [];
      for (const each of level) {
        touchTagsOf(repository, each, atMs);
        touch(repository.roots.get(each), atMs);
        for (const parent of this.#tables.parentsOf(each)) {
          if (!repository.links.has(parent.digest)) continue;
          if (!seen.has(parent.digest)) next.push(parent.digest);
          seen.add(parent.digest);
        }
      }
      level = next;
    }
  }

  // --- pins and removal ------------------------------------------------------------------------

  setPinned(
    repository: StoredRepository,
    reference: Reference,
    isPinned: boolean,
  ): boolean {
    const wasLost = repository.takeLostPin(reference);
    const isCached = this.#pinRoot(repository, reference, isPinned);
    if (wasLost && !isCached && isPinned) repository.keepLostPin(reference);
    return isCached || wasLost;
  }

  #pinRoot(
    repository: StoredRepository,
    reference: Reference,
    isPinned: boolean,
  ): boolean {
    if (reference.kind === "tag") {
      const tag = repository.tags.get(reference.tag);
      if (tag !== undefined) tag.isPinned = isPinned;
      return tag !== undefined;
    }
    const { digest } = reference;
    const blob = this.#tables.blobs.get(digest);
    if (blob?.manifest === undefined || !repository.links.has(digest)) {
      return false;
    }
    const usedAtMs = repository.roots.get(digest)?.usedAtMs ?? blob.usedAtMs;
    repository.roots.delete(digest);
    if (isPinned) putRoot(repository, digest, usedAtMs, true);
    else this.onStored(digest, repository, usedAtMs);
    return true;
  }

  drop(
    repository: StoredRepository,
    reference: Reference,
    usedAtMs: number | undefined,
  ): boolean {
    const root =
      reference.kind === "tag"
        ? repository.tags.get(reference.tag)
        : repository.roots.get(reference.digest);
    const isHosted =
      reference.kind === "tag"
        ? repository.tags.get(reference.tag)?.isHosted === true
        : repository.hostedManifests.has(reference.digest);
    if (isHosted) return false;
    if (root === undefined) {
      return usedAtMs === undefined && repository.takeLostPin(reference);
    }
    if (
      usedAtMs !== undefined &&
      (root.isPinned || root.usedAtMs !== usedAtMs)
    ) {
      return false;
    }
    if (reference.kind === "tag") {
      repository.tags.delete(reference.tag);
      this.condemnUnheld((root as StoredTag).digest);
    } else {
      repository.roots.delete(reference.digest);
      this.condemnUnheld(reference.digest);
    }
    return true;
  }

  condemned(limit: number, except: ReadonlySet<Digest>): CondemnedBlob[] {
    const found: CondemnedBlob[] = [];
    const { condemned, beingRemoved } = this.#tables;
    for (const digest of condemned) {
      if (beingRemoved.has(digest)) continue;
      const blob = this.#tables.blobs.get(digest);
      if (blob === undefined || this.#tables.countHolders(digest) > 0) {
        condemned.delete(digest);
      } else if (!except.has(digest) && found.length < limit) {
        found.push({ digest, sizeBytes: blob.sizeBytes });
      }
    }
    for (const { digest } of found) beingRemoved.add(digest);
    return found;
  }

  forgetCondemned(digest: Digest): void {
    const blob = this.#tables.blobs.get(digest);
    if (blob === undefined) return;
    this.#keepPins(blob);
    this.#tables.deleteBlob(digest);
    const { children, subject } = blob.manifest ?? {};
    for (const child of children?.keys() ?? []) this.condemnUnheld(child);
    if (subject !== undefined) this.condemnUnheld(subject);
  }

  /** Keeps the pins of a manifest that is about to be deleted. */
  #keepPins({ digest, manifest }: StoredBlob): void {
    if (manifest === undefined) return;
    for (const repository of this.#tables.repositories.values()) {
      for (const [tag, row] of repository.tags) {
        if (row.digest === digest && row.isPinned) {
          repository.keepLostPin({ kind: "tag", tag });
        }
      }
      if (repository.roots.get(digest)?.isPinned === true) {
        repository.keepLostPin({ kind: "digest", digest });
      }
    }
  }

  #putUnheld(digest: Digest, owner: StoredRepository, atMs: number): void {
    if (this.#tables.countHolders(digest) === 0) {
      putRoot(owner, digest, atMs, false);
    }
  }

  /** A manifest that no tag or index of the repository names, or a blob that no manifest names. */
  #isUnnamed(digest: Digest, { tags, links }: StoredRepository): boolean {
    const parents = this.#tables.parentsOf(digest);
    if (this.#tables.blobs.get(digest)?.manifest === undefined) {
      return parents.length === 0;
    }
    return (
      ![...tags.values()].some((tag) => tag.digest === digest) &&
      !parents.some((parent) => links.has(parent.digest))
    );
  }
}

function putRoot(
  { roots }: StoredRepository,
  digest: Digest,
  usedAtMs: number,
  isPinned: boolean,
): void {
  const before = roots.get(digest);
  roots.set(digest, {
    usedAtMs: Math.max(before?.usedAtMs ?? usedAtMs, usedAtMs),
    isPinned: isPinned || before?.isPinned === true,
  });
}

function deleteUnpinned({ roots }: StoredRepository, digest: Digest): void {
  if (roots.get(digest)?.isPinned === false) roots.delete(digest);
}

function touchTagsOf(
  { tags }: StoredRepository,
  digest: Digest,
  atMs: number,
): void {
  for (const tag of tags.values()) if (tag.digest === digest) touch(tag, atMs);
}

function touch(row: { usedAtMs: number } | undefined, atMs: number): void {
  if (row !== undefined) row.usedAtMs = Math.max(row.usedAtMs, atMs);
}
