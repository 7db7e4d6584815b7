import type { Digest } from "../../../../oci/digest.ts";
import type { RepositoryKey, Tag } from "../../../../oci/reference.ts";
import {
  type ImmutableTags,
  NOTHING_IMMUTABLE,
  type QuotaCondition,
} from "../../../hosted-index.ts";
import type { BlobRecord } from "../../../blob-index.ts";
import type { BlobRows } from "../blob-rows.ts";
import { bytesOf, pathOf } from "../index-keys.ts";
import type { IndexStatements } from "../index-statements.ts";
import type { HostedStatements, LinkId } from "./hosted-statements.ts";

/** The rows that several writes of hosted repositories need. Runs in the caller's transactions. */
export class HostedRows {
  readonly #statements: HostedStatements;
  readonly #index: IndexStatements;
  readonly #rows: BlobRows;
  readonly #nowMs: () => number;

  constructor(
    statements: HostedStatements,
    index: IndexStatements,
    rows: BlobRows,
    nowMs: () => number,
  ) {
    this.#statements = statements;
    this.#index = index;
    this.#rows = rows;
    this.#nowMs = nowMs;
  }

  /** Returns the id of a hosted repository; undefined if it has no row. */
  findRepository(key: RepositoryKey): number | undefined {
    const row = this.#statements.getRepository.get(pathOf(key));
    return row === undefined || row.registryId === null ? undefined : row.id;
  }

  makeRepository(key: RepositoryKey): number {
    const { getRepository, getRegistry, insertRegistry, setRegistry } =
      this.#statements;
    const found = getRepository.get(pathOf(key));
    if (found !== undefined && found.registryId !== null) return found.id;
    const id = this.#rows.repositoryId(key);
    const registryId =
      getRegistry.get(key.upstream)?.id ??
      Number(insertRegistry.run(key.upstream).lastInsertRowid);
    setRegistry.run(registryId, id);
    return id;
  }

  /** Returns whether a link to the blob would exceed the quota. A digest that the registry already has adds no bytes. */
  exceedsQuota(
    registry: string,
    digest: Digest,
    sizeBytes: number,
    { maxBytes, reservedBytes }: QuotaCondition,
  ): boolean {
    if (maxBytes === Infinity || sizeBytes === 0) return false;
    const row = this.#statements.getRegistry.get(registry);
    const usedBytes = row?.bytes ?? 0;
    if (usedBytes + reservedBytes + sizeBytes <= maxBytes) return false;
    const blob = this.#index.findStoredId.get(bytesOf(digest));
    return (
      row === undefined ||
      blob === undefined ||
      this.#statements.hasContent.get(row.id, blob.id) === undefined
    );
  }

  /** Links a stored blob to a hosted repository, which holds the blob from then on. */
  putLink({ blobId, repositoryId }: LinkId, claimedAtMs: number | null): void {
    this.#index.putLink.run(blobId, repositoryId);
    this.#statements.putLink.run(blobId, repositoryId, claimedAtMs);
    this.#statements.deleteUnclaimedRoot.run(blobId);
  }

  /**
   * Called before the row of a blob with bytes is written.
   *
   * @returns a function to call afterwards: it links a blob that was lost, and is stored again, to the
   *   repositories whose manifests name it, because each of them had it
   */
  beforeStored({ digest, manifest }: BlobRecord): (blobId: number) => void {
    const isLost =
      manifest === undefined &&
      this.#index.findStoredId.get(bytesOf(digest)) === undefined;
    return (blobId) => {
      if (!isLost) return;
      const found = this.#statements.listNamingRepositories.all(blobId);
      for (const id of new Set(found.map(({ repositoryId }) => repositoryId))) {
        this.putLink({ blobId, repositoryId: id }, null);
      }
    };
  }

  isLinked(repositoryId: number | undefined, digest: Digest): boolean {
    return (
      repositoryId !== undefined &&
      this.#statements.findLink.get(bytesOf(digest), repositoryId) !== undefined
    );
  }

  /** Records whether a tag, a manifest or a subject of the repository needs the manifests. */
  refreshUntagged(manifests: Iterable<LinkId>, atMs = this.#nowMs()): void {
    const { getNeed, setUntagged } = this.#statements;
    for (const manifest of manifests) {
      const row = getNeed.get(manifest);
      if (row === undefined) continue;
      const isUntagged = row.untaggedAtMs !== null;
      if (isUntagged !== (row.isNeeded === 1)) continue;
      setUntagged.run({ ...manifest, atMs: isUntagged ? null : atMs });
    }
  }

  /**
   * Called before a manifest is deleted from a repository: marks the links of its children.
   *
   * @returns a function to call afterwards
   */
  beforeManifestLeaves(manifest: LinkId): () => void {
    const dependents = this.#statements.listDependents.all(manifest);
    this.#statements.markChildren.run({ ...manifest, atMs: this.#nowMs() });
    return () => {
      this.refreshUntagged(dependents);
    };
  }

  /**
   * Called before the row of a blob whose bytes are gone is deleted.
   *
   * @returns a function to call afterwards
   */
  beforeForgotten(blobId: number): () => void {
    const after = this.#statements.listHosts
      .all(blobId)
      .map((manifest) => this.beforeManifestLeaves(manifest));
    return () => {
      for (const run of after) run();
    };
  }

  /** Returns an immutable tag of the repository whose graph includes the blob. */
  findImmutableAbove(
    blob: LinkId,
    isImmutable: ImmutableTags,
  ): Tag | undefined {
    if (isImmutable === NOTHING_IMMUTABLE) return undefined;
    const seen = new Set([blob.blobId]);
    for (let level: LinkId[] = [blob]; level.length > 0;) {
      const next: LinkId[] = [];
      for (const node of level) {
        const found = this.tagsOf(node).find(isImmutable);
        if (found !== undefined) return found;
        for (const parent of this.#statements.listParents.iterate(node)) {
          if (!seen.has(parent.blobId)) next.push(parent);
          seen.add(parent.blobId);
        }
      }
      level = next;
    }
    return undefined;
  }

  tagsOf(manifest: LinkId): readonly Tag[] {
    return this.#statements.listTagsOf
      .all(manifest)
      .map(({ name }) => name as Tag);
  }
}
