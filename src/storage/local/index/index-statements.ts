import type { Database } from "better-sqlite3";

/*
 * The statements of requests, prepared once. A digest is passed as its bytes, a repository as its
 * path (`upstream/repository`). Each statement finds its rows by an index, however many blobs and
 * tags there are: test/unit/storage/local/index/index-statements.test.ts reads the query plans.
 *
 * In a join a parameter is written as `(SELECT ?)`. This SQLite is built with STAT4 and considers
 * the value of a plain parameter when it plans the join, so each new value would be planned again,
 * at 20 to 40 times the cost of the lookup itself.
 */

interface BlobColumns {
  readonly sizeBytes: number;
  readonly storedAtMs: number;
  readonly verifiedAtMs: number;
  readonly mediaType: string | null;
}

interface TagColumns {
  readonly digest: Buffer;
  readonly sizeBytes: number;
  readonly mediaType: string;
  readonly fetchedAtMs: number;
  readonly verifiedAtMs: number;
  readonly goneAtMs: number | null;
  readonly isPinned: 0 | 1;
}

interface EdgeParameters {
  readonly parentId: number;
  readonly childId: number;
  readonly isManifest: 0 | 1;
  readonly isForeign: 0 | 1;
  readonly sizeBytes: number;
  readonly mediaTypeId: number;
}

interface IdColumn {
  readonly id: number;
}

/**
 * Returns the joins that give a manifest's media type: the one under which the repository serves it.
 *
 * @param manifestId a column of the outer query
 * @param repositoryId a column of the outer query
 */
export function mediaTypeJoins(
  manifestId: string,
  repositoryId: string,
): string {
  return `CROSS JOIN manifests ON manifests.id = ${manifestId}
    LEFT JOIN links ON links.blob_id = ${manifestId} AND links.repository_id = ${repositoryId}
    CROSS JOIN media_types ON media_types.id =
      coalesce(links.media_type_id, manifests.media_type_id)`;
}

export type IndexStatements = ReturnType<typeof prepareIndexStatements>;

export function prepareIndexStatements(database: Database) {
  return {
    // --- ids of names ---
    findDigestId: database.prepare<[Buffer], IdColumn>(
      `SELECT id FROM digests WHERE digest = ?`,
    ),
    insertDigest: database.prepare<[Buffer]>(
      `INSERT INTO digests (digest) VALUES (?)`,
    ),
    findMediaTypeId: database.prepare<[string], IdColumn>(
      `SELECT id FROM media_types WHERE name = ?`,
    ),
    lastMediaTypeId: database.prepare<[], IdColumn>(
      `SELECT coalesce(max(id), 0) AS id FROM media_types`,
    ),
    insertMediaType: database.prepare<[string]>(
      `INSERT INTO media_types (name) VALUES (?)`,
    ),
    findRepositoryId: database.prepare<[string], IdColumn>(
      `SELECT id FROM repositories WHERE path = ?`,
    ),
    insertRepository: database.prepare<[string, string]>(
      `INSERT INTO repositories (upstream, name) VALUES (?, ?)`,
    ),
    /** A hosted repository is listed only if it has a manifest. */
    listRepositories: database.prepare<
      [string, number],
      { readonly upstream: string; readonly name: string }
    >(
      `SELECT upstream, name FROM repositories
       WHERE path > ? AND iif(
         hosted_registry_id IS NULL,
         EXISTS (SELECT 1 FROM links WHERE repository_id = repositories.id),
         EXISTS (SELECT 1 FROM hosted_manifests WHERE repository_id = repositories.id)
       )
       ORDER BY path LIMIT ?`,
    ),

    // --- blobs and links ---
    getBlob: database.prepare<[Buffer], BlobColumns>(
      `SELECT blobs.size_bytes AS sizeBytes, blobs.stored_at_ms AS storedAtMs,
         max(blobs.stored_at_ms, blobs.verified_at_ms) AS verifiedAtMs,
         media_types.name AS mediaType
       FROM digests
       JOIN blobs ON blobs.id = digests.id
       LEFT JOIN manifests ON manifests.id = blobs.id
       LEFT JOIN media_types ON media_types.id = manifests.media_type_id
       WHERE digests.digest = (SELECT ?)`,
    ),
    getLinkedBlob: database.prepare<[string, Buffer], BlobColumns>(
      `SELECT blobs.size_bytes AS sizeBytes, blobs.stored_at_ms AS storedAtMs,
         max(blobs.stored_at_ms, blobs.verified_at_ms) AS verifiedAtMs,
         media_types.name AS mediaType
       FROM repositories
       JOIN digests
       JOIN links ON links.blob_id = digests.id AND links.repository_id = repositories.id
       JOIN blobs ON blobs.id = digests.id
       LEFT JOIN manifests ON manifests.id = blobs.id
       LEFT JOIN media_types ON media_types.id =
         coalesce(links.media_type_id, manifests.media_type_id)
       WHERE repositories.path = (SELECT ?) AND digests.digest = (SELECT ?)`,
    ),
    getUpstreamBlob: database.prepare<[Buffer, string], BlobColumns>(
      `SELECT blobs.size_bytes AS sizeBytes, blobs.stored_at_ms AS storedAtMs,
         max(blobs.stored_at_ms, blobs.verified_at_ms) AS verifiedAtMs,
         media_types.name AS mediaType
       FROM digests
       CROSS JOIN links ON links.blob_id = digests.id
       CROSS JOIN repositories ON repositories.id = links.repository_id
       CROSS JOIN blobs ON blobs.id = digests.id
       LEFT JOIN manifests ON manifests.id = blobs.id
       LEFT JOIN media_types ON media_types.id =
         coalesce(links.media_type_id, manifests.media_type_id)
       WHERE digests.digest = (SELECT ?) AND repositories.upstream = (SELECT ?)
       LIMIT 1`,
    ),
    findStoredId: database.prepare<
      [Buffer],
      IdColumn & { readonly usedAtMs: number }
    >(
      `SELECT blobs.id, blobs.used_at_ms AS usedAtMs FROM digests JOIN blobs ON blobs.id = digests.id WHERE digests.digest = (SELECT ?)`,
    ),
    putBlob: database.prepare<[number, number, number, number]>(
      `INSERT INTO blobs (id, size_bytes, stored_at_ms, used_at_ms) VALUES (?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET
         size_bytes = excluded.size_bytes, stored_at_ms = excluded.stored_at_ms`,
    ),
    /** Keeps the media type of an existing manifest: links without a type of their own use it. */
    putManifest: database.prepare<[number, number, number | null]>(
      `INSERT INTO manifests (id, media_type_id, subject_id) VALUES (?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET subject_id = excluded.subject_id`,
    ),
    putManifestType: database.prepare<[number, number]>(
      `UPDATE manifests SET media_type_id = ? WHERE id = ?`,
    ),
    putLink: database.prepare<[number, number]>(
      `INSERT INTO links (blob_id, repository_id) VALUES (?, ?) ON CONFLICT DO NOTHING`,
    ),
    /** Writes nothing if the link has this type already. */
    putLinkType: database.prepare<
      [
        {
          readonly blobId: number;
          readonly repositoryId: number;
          readonly mediaTypeId: number;
        },
      ]
    >(
      `UPDATE links SET media_type_id = :mediaTypeId
       WHERE blob_id = :blobId AND repository_id = :repositoryId
         AND :mediaTypeId IS NOT coalesce(
           media_type_id, (SELECT media_type_id FROM manifests WHERE id = :blobId)
         )`,
    ),
    /** The foreign keys delete its links, edges and tags. */
    deleteBlob: database.prepare<[Buffer]>(
      `DELETE FROM blobs WHERE id = (SELECT id FROM digests WHERE digest = ?)`,
    ),
    noteVerified: database.prepare<[number, Buffer]>(
      `UPDATE blobs SET verified_at_ms = max(verified_at_ms, ?)
       WHERE id = (SELECT id FROM digests WHERE digest = ?)`,
    ),
    touchBlob: database.prepare<[number, Buffer]>(
      `UPDATE blobs SET used_at_ms = max(used_at_ms, ?)
       WHERE id = (SELECT id FROM digests WHERE digest = ?)`,
    ),

    // --- the graph ---
    deleteEdges: database.prepare<[number]>(
      `DELETE FROM edges WHERE parent_id = ?`,
    ),
    /** A child that is named twice is foreign only if it is foreign both times; otherwise a pull needs it. */
    putEdge: database.prepare<[EdgeParameters]>(
      `INSERT INTO edges (parent_id, child_id, is_manifest, is_foreign, size_bytes, media_type_id)
       VALUES (:parentId, :childId, :isManifest, :isForeign, :sizeBytes, :mediaTypeId)
       ON CONFLICT (parent_id, child_id) DO UPDATE SET is_foreign = min(is_foreign, excluded.is_foreign)`,
    ),
    findDescriptor: database.prepare<
      [string, Buffer],
      { readonly sizeBytes: number; readonly mediaType: string }
    >(
      `SELECT edges.size_bytes AS sizeBytes, media_types.name AS mediaType
       FROM digests
       CROSS JOIN edges ON edges.child_id = digests.id
       CROSS JOIN links ON links.blob_id = edges.parent_id
         AND links.repository_id = (SELECT id FROM repositories WHERE path = (SELECT ?))
       CROSS JOIN media_types ON media_types.id = edges.media_type_id
       WHERE digests.digest = (SELECT ?)
       LIMIT 1`,
    ),
    findLinkedManifestId: database.prepare<[string, Buffer], IdColumn>(
      `SELECT manifests.id
       FROM repositories
       JOIN digests
       JOIN links ON links.blob_id = digests.id AND links.repository_id = repositories.id
       JOIN manifests ON manifests.id = digests.id
       WHERE repositories.path = (SELECT ?) AND digests.digest = (SELECT ?)`,
    ),
    hasManifestChild: database.prepare<[number]>(
      `SELECT 1 FROM edges WHERE parent_id = ? AND is_manifest LIMIT 1`,
    ),
    listLinkedManifestChildren: database.prepare<[string, number], IdColumn>(
      `SELECT manifests.id
       FROM edges
       CROSS JOIN manifests ON manifests.id = edges.child_id
       CROSS JOIN links ON links.blob_id = edges.child_id
         AND links.repository_id = (SELECT id FROM repositories WHERE path = (SELECT ?))
       WHERE edges.parent_id = (SELECT ?) AND edges.is_manifest`,
    ),
    findMissingBlobChild: database.prepare<[number, string]>(
      `SELECT 1 FROM edges
       WHERE parent_id = ? AND NOT is_manifest AND NOT is_foreign
         AND NOT EXISTS (
           SELECT 1 FROM links
           WHERE links.blob_id = edges.child_id
             AND links.repository_id = (SELECT id FROM repositories WHERE path = ?)
         )
       LIMIT 1`,
    ),
    findAbsentBlobChild: database.prepare<[number, string]>(
      `SELECT 1 FROM edges
       WHERE parent_id = (SELECT ?) AND NOT is_manifest AND NOT is_foreign
         AND NOT EXISTS (
           SELECT 1 FROM links
           CROSS JOIN repositories ON repositories.id = links.repository_id
           WHERE links.blob_id = edges.child_id AND repositories.upstream = (SELECT ?)
         )
       LIMIT 1`,
    ),

    // --- tags ---
    getTag: database.prepare<[string, string], TagColumns>(
      `SELECT digests.digest, blobs.size_bytes AS sizeBytes, media_types.name AS mediaType,
         tags.fetched_at_ms AS fetchedAtMs, tags.verified_at_ms AS verifiedAtMs,
         tags.gone_at_ms AS goneAtMs, tags.is_pinned AS isPinned
       FROM repositories
       CROSS JOIN tags ON tags.repository_id = repositories.id
       CROSS JOIN blobs ON blobs.id = tags.manifest_id
       ${mediaTypeJoins("tags.manifest_id", "tags.repository_id")}
       CROSS JOIN digests ON digests.id = tags.manifest_id
       WHERE repositories.path = (SELECT ?) AND tags.name = (SELECT ?)`,
    ),
    putTag: database.prepare<
      [
        {
          readonly repositoryId: number;
          readonly tag: string;
          readonly digest: Buffer;
          readonly verifiedAtMs: number;
          readonly seenAtMs: number;
        },
      ]
    >(
      `INSERT INTO tags (repository_id, name, manifest_id, fetched_at_ms, verified_at_ms, used_at_ms)
       SELECT :repositoryId, :tag, manifests.id, :seenAtMs, :verifiedAtMs, :seenAtMs
       FROM digests JOIN manifests ON manifests.id = digests.id
       WHERE digests.digest = (SELECT :digest)
       ON CONFLICT (repository_id, name) DO UPDATE SET
         fetched_at_ms = iif(manifest_id = excluded.manifest_id, fetched_at_ms, excluded.fetched_at_ms),
         manifest_id = excluded.manifest_id,
         verified_at_ms = excluded.verified_at_ms,
         gone_at_ms = NULL`,
    ),
    markTagGone: database.prepare<[number, string, string]>(
      `UPDATE tags SET gone_at_ms = ?
       WHERE repository_id = (SELECT id FROM repositories WHERE path = ?) AND name = ?`,
    ),
    removeTag: database.prepare<[string, string]>(
      `DELETE FROM tags
       WHERE repository_id = (SELECT id FROM repositories WHERE path = ?) AND name = ?`,
    ),
    listTags: database.prepare<
      [string, string, number],
      { readonly name: string }
    >(
      `SELECT name FROM tags
       WHERE repository_id = (SELECT id FROM repositories WHERE path = ?) AND name > ?
       ORDER BY name LIMIT ?`,
    ),

    getTotals: database.prepare<
      [],
      {
        readonly blobs: number;
        readonly blobBytes: number;
        readonly manifests: number;
        readonly tags: number;
        readonly listBytes: number;
      }
    >(
      `SELECT blobs, blob_bytes AS blobBytes, manifests, tags, list_bytes AS listBytes
       FROM totals WHERE id = 1`,
    ),
  };
}
