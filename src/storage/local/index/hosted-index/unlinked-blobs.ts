import type { Database, Statement } from "better-sqlite3";
import type { Digest } from "../../../../oci/digest.ts";
import type { RepositoryKey } from "../../../../oci/reference.ts";
import type { RootChange } from "../../upkeep/roots-journal.ts";
import { bytesOf, digestFrom, pathOf } from "../index-keys.ts";
import type { LinkId } from "./hosted-statements.ts";

/**
 * Blobs that were deleted from a hosted repository while a manifest there named them, so that a
 * rebuild does not link them again. Each change of a row has a line in the journal. Runs in the
 * caller's transactions.
 */
export class UnlinkedBlobs {
  readonly #has: Statement<[string, Buffer]>;
  readonly #put: Statement<[number, Buffer, number]>;
  readonly #remove: Statement<[number, Buffer]>;
  readonly #isNamed: Statement<[LinkId]>;
  readonly #listOnlyNamedBy: Statement<[LinkId], { readonly digest: Buffer }>;

  constructor(database: Database) {
    this.#has = database.prepare(
      `SELECT 1 FROM hosted_unlinked
       WHERE repository_id = (SELECT id FROM repositories WHERE path = (SELECT ?)) AND digest = (SELECT ?)`,
    );
    this.#put = database.prepare(
      `INSERT INTO hosted_unlinked (repository_id, digest, unlinked_at_ms) VALUES (?, ?, ?)
       ON CONFLICT (repository_id, digest) DO UPDATE SET unlinked_at_ms = excluded.unlinked_at_ms`,
    );
    this.#remove = database.prepare(
      `DELETE FROM hosted_unlinked WHERE repository_id = ? AND digest = ?`,
    );
    this.#isNamed = database.prepare(
      `SELECT 1 FROM edges
       CROSS JOIN hosted_manifests ON hosted_manifests.blob_id = edges.parent_id
         AND hosted_manifests.repository_id = :repositoryId
       WHERE edges.child_id = :blobId LIMIT 1`,
    );
    this.#listOnlyNamedBy = database.prepare(
      `SELECT digests.digest FROM edges
       CROSS JOIN digests ON digests.id = edges.child_id
       CROSS JOIN hosted_unlinked ON hosted_unlinked.repository_id = :repositoryId
         AND hosted_unlinked.digest = digests.digest
       WHERE edges.parent_id = :blobId AND NOT EXISTS (
         SELECT 1 FROM edges AS others
         CROSS JOIN hosted_manifests ON hosted_manifests.blob_id = others.parent_id
           AND hosted_manifests.repository_id = :repositoryId
         WHERE others.child_id = edges.child_id AND others.parent_id <> :blobId)`,
    );
  }

  has(key: RepositoryKey, digest: Digest): boolean {
    return this.#has.get(pathOf(key), bytesOf(digest)) !== undefined;
  }

  /** Returns whether a manifest of the repository names the blob. */
  isNamed(link: LinkId): boolean {
    return this.#isNamed.get(link) !== undefined;
  }

  put(repositoryId: number, digest: Digest, atMs: number): void {
    this.#put.run(repositoryId, bytesOf(digest), atMs);
  }

  /** @returns whether there was a row */
  remove(repositoryId: number, digest: Digest): boolean {
    return this.#remove.run(repositoryId, bytesOf(digest)).changes > 0;
  }

  /** Called before a link is deleted on request. @returns the line, if the blob is named */
  onUnlink(
    key: RepositoryKey,
    link: LinkId,
    digest: Digest,
    atMs: number,
  ): readonly RootChange[] {
    if (!this.isNamed(link)) return [];
    this.put(link.repositoryId, digest, atMs);
    return [blobChange(key, digest, "unlinked", atMs)];
  }

  /** Called after a link was written, or when no manifest names the blob any more. */
  onLinked(
    blob: {
      readonly key: RepositoryKey;
      readonly repositoryId: number;
      readonly digest: Digest;
    },
    atMs: number,
  ): readonly RootChange[] {
    const { key, repositoryId, digest } = blob;
    return this.remove(repositoryId, digest)
      ? [blobChange(key, digest, "linked", atMs)]
      : [];
  }

  /** Lists deleted blobs that no manifest of the repository but this one names. */
  listOnlyNamedBy(manifest: LinkId): readonly Digest[] {
    return this.#listOnlyNamedBy
      .all(manifest)
      .map(({ digest }) => digestFrom(digest));
  }
}

/** Returns the change of a blob that was deleted, or is no longer recorded as deleted. */
export function blobChange(
  key: RepositoryKey,
  digest: Digest,
  blob: "unlinked" | "linked",
  atMs?: number,
): RootChange {
  return {
    key,
    reference: { kind: "digest", digest },
    digest: undefined,
    mediaType: undefined,
    isPinned: false,
    blob,
    atMs,
  };
}
