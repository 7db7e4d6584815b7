import type { Database } from "better-sqlite3";
import type { Digest } from "../../../../oci/digest.ts";
import type {
  Reference,
  RepositoryKey,
  Tag,
} from "../../../../oci/reference.ts";
import {
  type HostedManifestRecord,
  NOTHING_IMMUTABLE,
} from "../../../hosted-index.ts";
import type { RootChange } from "../../upkeep/roots-journal.ts";
import type { BlobRows } from "../blob-rows.ts";
import { bytesOf, digestFrom, pathOf } from "../index-keys.ts";
import { type IndexStatements, mediaTypeJoins } from "../index-statements.ts";
import type { IndexTransactions } from "../index-transactions.ts";
import { gone } from "../root-changes.ts";
import { blobChange, type UnlinkedBlobs } from "./unlinked-blobs.ts";
import type { HostedWrites } from "./hosted-writes.ts";

/** A name in a hosted repository: a tag, the digest of a manifest, or that of a deleted blob. */
export interface HostedName {
  readonly key: RepositoryKey;
  readonly reference: Reference;
  readonly blob?: "unlinked" | "linked";
}

/** A manifest of the journal whose bytes are stored. */
export interface RestoredManifest {
  readonly key: RepositoryKey;
  readonly manifest: HostedManifestRecord;
  /** The blobs that it names, as far as they are stored. */
  readonly blobs: readonly {
    readonly digest: Digest;
    readonly sizeBytes: number;
  }[];
  readonly tags: readonly { readonly tag: Tag; readonly atMs: number }[];
}

/**
 * Restores rows of hosted repositories from the journal; nothing here writes lines. No tag is immutable
 * to a deletion that was acknowledged.
 */
export interface HostedRecovery {
  /** Returns the names of hosted registries. @throws SQLite's errors */
  registries(): readonly string[];
  /** Returns the line of a name as its row is now. @throws SQLite's errors */
  readNow(name: HostedName): RootChange;
  /** Writes a manifest with tags, whether or not everything that it names is stored. @throws IndexError */
  restore(restored: RestoredManifest, nowMs: number): Promise<void>;
  /** @throws IndexError */
  remove(name: HostedName): Promise<void>;
  /** Unlinks a blob that was deleted. @throws IndexError */
  unlink(key: RepositoryKey, digest: Digest, atMs: number): Promise<void>;
  /**
   * Drops the record of a deletion, and links the blob if a manifest names it.
   *
   * @param sizeBytes undefined if it is not stored
   * @throws IndexError
   */
  relink(
    key: RepositoryKey,
    digest: Digest,
    sizeBytes: number | undefined,
    nowMs: number,
  ): Promise<void>;
}

export interface HostedRecoveryParts {
  readonly database: Database;
  readonly transactions: IndexTransactions;
  readonly statements: IndexStatements;
  readonly writes: HostedWrites;
  readonly unlinked: UnlinkedBlobs;
  readonly rows: BlobRows;
}

type RecoveryStatements = ReturnType<typeof prepareRecoveryStatements>;

export function prepareRecoveryStatements(database: Database) {
  return {
    registries: database.prepare<[], { readonly name: string }>(
      `SELECT name FROM hosted_registries WHERE name > '' ORDER BY name`,
    ),
    findTag: database.prepare<
      [string, string],
      {
        readonly digest: Buffer;
        readonly mediaType: string;
        readonly atMs: number;
        readonly isPinned: 0 | 1;
      }
    >(
      `SELECT digests.digest, media_types.name AS mediaType, tags.fetched_at_ms AS atMs,
         tags.is_pinned AS isPinned
       FROM tags
       CROSS JOIN digests ON digests.id = tags.manifest_id
       ${mediaTypeJoins("tags.manifest_id", "tags.repository_id")}
       WHERE tags.repository_id = (SELECT id FROM repositories WHERE path = (SELECT ?))
         AND tags.name = (SELECT ?) AND tags.is_hosted`,
    ),
    findManifest: database.prepare<
      [string, Buffer],
      { readonly mediaType: string; readonly atMs: number }
    >(
      `SELECT media_types.name AS mediaType, hosted_manifests.pushed_at_ms AS atMs
       FROM hosted_manifests
       ${mediaTypeJoins("hosted_manifests.blob_id", "hosted_manifests.repository_id")}
       WHERE hosted_manifests.repository_id = (SELECT id FROM repositories WHERE path = (SELECT ?))
         AND hosted_manifests.digest = (SELECT ?)`,
    ),
    // The time of the last pull is lost; the present time keeps retention from deleting too much.
    putTag: database.prepare<
      [
        {
          readonly path: string;
          readonly tag: string;
          readonly digest: Buffer;
          readonly atMs: number;
          readonly nowMs: number;
        },
      ]
    >(
      `INSERT INTO tags (repository_id, name, manifest_id, fetched_at_ms, verified_at_ms, used_at_ms,
         is_hosted)
       SELECT repositories.id, :tag, digests.id, :atMs, :atMs, :nowMs, 1
       FROM repositories CROSS JOIN digests
       WHERE repositories.path = (SELECT :path) AND digests.digest = (SELECT :digest)
       ON CONFLICT (repository_id, name) DO UPDATE SET
         manifest_id = excluded.manifest_id,
         fetched_at_ms = excluded.fetched_at_ms,
         verified_at_ms = excluded.verified_at_ms,
         used_at_ms = excluded.used_at_ms,
         gone_at_ms = NULL,
         is_hosted = 1`,
    ),
  };
}

export class HostedRecoveryRows implements HostedRecovery {
  readonly #parts: HostedRecoveryParts;
  readonly #statements: RecoveryStatements;

  constructor(parts: HostedRecoveryParts) {
    this.#parts = parts;
    this.#statements = prepareRecoveryStatements(parts.database);
  }

  registries(): readonly string[] {
    return this.#statements.registries.all().map(({ name }) => name);
  }

  readNow({ key, reference, blob }: HostedName): RootChange {
    const path = pathOf(key);
    if (blob !== undefined && reference.kind === "digest") {
      const { digest } = reference;
      const isUnlinked = this.#parts.unlinked.has(key, digest);
      return blobChange(key, digest, isUnlinked ? "unlinked" : "linked");
    }
    if (reference.kind === "tag") {
      const row = this.#statements.findTag.get(path, reference.tag);
      if (row === undefined) return gone(key, reference);
      const { digest, mediaType, atMs, isPinned } = row;
      return {
        key,
        reference,
        digest: digestFrom(digest),
        mediaType,
        isPinned: isPinned === 1,
        atMs,
      };
    }
    const { digest } = reference;
    const row = this.#statements.findManifest.get(path, bytesOf(digest));
    if (row === undefined) return gone(key, reference);
    return { key, reference, digest, isPinned: false, ...row };
  }

  unlink(key: RepositoryKey, digest: Digest, atMs: number): Promise<void> {
    const { transactions, writes, unlinked } = this.#parts;
    return transactions.write("unlinkHosted", () => {
      writes.unlinkBlob(key, digest, NOTHING_IMMUTABLE);
      // A manifest that names it may be restored later.
      unlinked.put(writes.rows.makeRepository(key), digest, atMs);
    });
  }

  relink(
    key: RepositoryKey,
    digest: Digest,
    sizeBytes: number | undefined,
    nowMs: number,
  ): Promise<void> {
    const { transactions, writes, rows, statements, unlinked } = this.#parts;
    return transactions.write("relinkHosted", () => {
      const repositoryId = writes.rows.makeRepository(key);
      unlinked.remove(repositoryId, digest);
      if (sizeBytes === undefined) return;
      const blobId = rows.digestId(digest);
      if (!unlinked.isNamed({ blobId, repositoryId })) return;
      if (statements.findStoredId.get(bytesOf(digest)) === undefined) {
        rows.putBlob({ digest, sizeBytes, storedAtMs: nowMs });
      }
      writes.rows.putLink({ blobId, repositoryId }, nowMs);
    });
  }

  restore(restored: RestoredManifest, nowMs: number): Promise<void> {
    return this.#parts.transactions.write("restoreHosted", () => {
      this.#restore(restored, nowMs);
    });
  }

  #restore(
    { key, manifest, blobs, tags }: RestoredManifest,
    nowMs: number,
  ): void {
    const { writes, rows, statements, unlinked } = this.#parts;
    const repositoryId = writes.rows.makeRepository(key);
    for (const { digest, sizeBytes } of blobs) {
      if (unlinked.has(key, digest)) continue;
      const blobId =
        statements.findStoredId.get(bytesOf(digest))?.id ??
        rows.putBlob({ digest, sizeBytes, storedAtMs: nowMs });
      writes.rows.putLink({ blobId, repositoryId }, null);
    }
    writes.restoreManifest(key, manifest);
    for (const { tag, atMs } of tags) {
      const before = this.#statements.findTag.get(pathOf(key), tag);
      this.#statements.putTag.run({
        path: pathOf(key),
        tag,
        digest: bytesOf(manifest.digest),
        atMs,
        nowMs,
      });
      if (before !== undefined) {
        this.#refreshUntagged(repositoryId, before.digest, nowMs);
      }
    }
    this.#refreshUntagged(repositoryId, bytesOf(manifest.digest), nowMs);
  }

  #refreshUntagged(repositoryId: number, digest: Buffer, atMs: number): void {
    const { writes, statements } = this.#parts;
    const blobId = statements.findStoredId.get(digest)?.id;
    if (blobId === undefined) return;
    writes.rows.refreshUntagged([{ blobId, repositoryId }], atMs);
  }

  remove({ key, reference }: HostedName): Promise<void> {
    const { transactions, writes } = this.#parts;
    return transactions.write("removeHosted", () => {
      if (reference.kind === "tag") {
        writes.deleteTag(key, reference.tag, NOTHING_IMMUTABLE);
      } else writes.deleteManifest(key, reference.digest, NOTHING_IMMUTABLE);
    });
  }
}
