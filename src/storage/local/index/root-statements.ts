import type { Database } from "better-sqlite3";
import { mediaTypeJoins } from "./index-statements.ts";

/* The statements of roots, prepared once; index-statements.test.ts reads their query plans. */

/** Holders of a blob are counted up to this number of each kind, which bounds the time of the count. */
export const MAX_COUNTED_HOLDERS = 128;

interface RootColumns {
  readonly repositoryId: number;
  readonly upstream: string;
  readonly repository: string;
  readonly digest: Buffer;
  readonly usedAtMs: number;
  readonly isPinned: 0 | 1;
}

export interface TagRootColumns extends RootColumns {
  readonly tag: string;
  readonly mediaType: string;
}

export interface OtherRootColumns extends RootColumns {
  readonly blobId: number;
  readonly mediaType: string | null;
}

export interface NodeColumns {
  readonly id: number;
  readonly digest: Buffer;
  readonly sizeBytes: number | null;
  readonly isManifest: 0 | 1;
  readonly holders: number;
}

interface CondemnedColumns {
  readonly id: number;
  readonly digest: Buffer;
  readonly sizeBytes: number;
  readonly isNeeded: 0 | 1;
}

export type RootStatements = ReturnType<typeof prepareRootStatements>;

const TAG_COLUMNS = `
  tags.repository_id AS repositoryId, repositories.upstream, repositories.name AS repository,
  tags.name AS tag, digests.digest, media_types.name AS mediaType,
  tags.used_at_ms AS usedAtMs, tags.is_pinned AS isPinned`;
const TAG_JOINS = `
  ${mediaTypeJoins("tags.manifest_id", "tags.repository_id")}
  CROSS JOIN digests ON digests.id = tags.manifest_id`;
const OTHER_COLUMNS = `
  roots.repository_id AS repositoryId, repositories.upstream, repositories.name AS repository,
  roots.blob_id AS blobId, digests.digest, media_types.name AS mediaType,
  roots.used_at_ms AS usedAtMs, roots.is_pinned AS isPinned`;
const OTHER_JOINS = `
  LEFT JOIN manifests ON manifests.id = roots.blob_id
  LEFT JOIN links ON links.blob_id = roots.blob_id
    AND links.repository_id = roots.repository_id
  LEFT JOIN media_types ON media_types.id =
    coalesce(links.media_type_id, manifests.media_type_id)
  CROSS JOIN digests ON digests.id = roots.blob_id`;

/** @param id a column of the outer query; the aliases keep SQLite from resolving it in these tables */
function holdersOf(id: string): string {
  return `(
    (SELECT count(*) FROM (SELECT 1 FROM tags AS t WHERE t.manifest_id = ${id} LIMIT ${MAX_COUNTED_HOLDERS}))
    + (SELECT count(*) FROM (SELECT 1 FROM roots AS r WHERE r.blob_id = ${id} LIMIT ${MAX_COUNTED_HOLDERS}))
    + (SELECT count(*) FROM (SELECT 1 FROM edges AS e WHERE e.child_id = ${id} LIMIT ${MAX_COUNTED_HOLDERS}))
    + (SELECT count(*) FROM (SELECT 1 FROM hosted_links AS h WHERE h.blob_id = ${id} LIMIT ${MAX_COUNTED_HOLDERS}))
  )`;
}

function isHeld(id: string): string {
  return `(
    EXISTS (SELECT 1 FROM tags AS t WHERE t.manifest_id = ${id})
    OR EXISTS (SELECT 1 FROM roots AS r WHERE r.blob_id = ${id})
    OR EXISTS (SELECT 1 FROM edges AS e WHERE e.child_id = ${id})
    OR EXISTS (SELECT 1 FROM hosted_links AS h WHERE h.blob_id = ${id})
  )`;
}

function prepareCondemned(database: Database, condition: string) {
  return database.prepare<[number, number], CondemnedColumns>(
    `SELECT condemned.blob_id AS id, digests.digest, blobs.size_bytes AS sizeBytes,
       ${isHeld("condemned.blob_id")} AS isNeeded
     FROM condemned
     CROSS JOIN blobs ON blobs.id = condemned.blob_id
     CROSS JOIN digests ON digests.id = condemned.blob_id
     WHERE condemned.blob_id > (SELECT ?) AND ${condition}
     ORDER BY condemned.blob_id LIMIT ?`,
  );
}

export function prepareRootStatements(database: Database) {
  return {
    findBlob: database.prepare<
      [Buffer],
      {
        readonly id: number;
        readonly isManifest: 0 | 1;
        readonly usedAtMs: number;
      }
    >(
      `SELECT blobs.id, blobs.used_at_ms AS usedAtMs, EXISTS (SELECT 1 FROM manifests WHERE manifests.id = blobs.id) AS isManifest
       FROM digests CROSS JOIN blobs ON blobs.id = digests.id
       WHERE digests.digest = (SELECT ?)`,
    ),
    isLinked: database.prepare<[number, number]>(
      `SELECT 1 FROM links WHERE blob_id = (SELECT ?) AND repository_id = (SELECT ?)`,
    ),

    // --- which rows are roots ---
    /**
     * Inserts a manifest that no tag or index of the repository names, or a blob that no manifest names.
     * Content of a hosted repository is a root only while it is pinned.
     */
    putUnnamedRoot: database.prepare<
      [
        {
          readonly blobId: number;
          readonly repositoryId: number;
          readonly usedAtMs: number;
          readonly isPinned: 0 | 1;
        },
      ]
    >(
      `INSERT INTO roots (blob_id, repository_id, used_at_ms, is_pinned)
       SELECT :blobId, :repositoryId, :usedAtMs, :isPinned
       WHERE :isPinned OR NOT EXISTS (
         SELECT 1 FROM hosted_links WHERE blob_id = (SELECT :blobId) AND repository_id = (SELECT :repositoryId)
       ) AND iif(
         EXISTS (SELECT 1 FROM manifests WHERE id = (SELECT :blobId)),
         NOT EXISTS (
           SELECT 1 FROM tags WHERE manifest_id = (SELECT :blobId) AND repository_id = (SELECT :repositoryId)
         )
         AND NOT EXISTS (
           SELECT 1 FROM edges
           CROSS JOIN links ON links.blob_id = edges.parent_id
             AND links.repository_id = (SELECT :repositoryId)
           WHERE edges.child_id = (SELECT :blobId)
         ),
         NOT EXISTS (SELECT 1 FROM edges WHERE child_id = (SELECT :blobId))
       )
       ON CONFLICT (blob_id, repository_id) DO UPDATE SET
         used_at_ms = max(used_at_ms, excluded.used_at_ms),
         is_pinned = max(is_pinned, excluded.is_pinned)`,
    ),
    /** Inserts a blob that nothing needs. */
    putUnheldRoot: database.prepare<
      [
        {
          readonly blobId: number;
          readonly repositoryId: number;
          readonly usedAtMs: number;
        },
      ]
    >(
      `INSERT INTO roots (blob_id, repository_id, used_at_ms, is_pinned)
       SELECT :blobId, :repositoryId, :usedAtMs, 0 WHERE NOT ${isHeld("(SELECT :blobId)")}`,
    ),
    /** Deletes the root of a manifest that a tag now names. */
    deleteNamedRoot: database.prepare<[number, number, number]>(
      `DELETE FROM roots WHERE blob_id = (SELECT ?) AND repository_id IN (?, ?) AND NOT is_pinned`,
    ),
    /** Lists the roots that an index of the repository now names. */
    listManifestRootsBelow: database.prepare<
      [number],
      { readonly blobId: number; readonly repositoryId: number }
    >(
      `SELECT roots.blob_id AS blobId, roots.repository_id AS repositoryId
       FROM edges
       CROSS JOIN roots ON roots.blob_id = edges.child_id AND NOT roots.is_pinned
       CROSS JOIN links ON links.blob_id = edges.parent_id
         AND links.repository_id = roots.repository_id
       WHERE edges.parent_id = (SELECT ?)`,
    ),
    /** Lists the roots of blobs that a manifest now names. For unclaimed content any manifest is sufficient. */
    listBlobRootsBelow: database.prepare<
      [number, number],
      { readonly blobId: number; readonly repositoryId: number }
    >(
      `SELECT roots.blob_id AS blobId, roots.repository_id AS repositoryId
       FROM edges
       CROSS JOIN roots ON roots.blob_id = edges.child_id AND NOT roots.is_pinned
       WHERE edges.parent_id = (SELECT ?)
         AND (roots.repository_id = (SELECT ?)
           OR NOT EXISTS (SELECT 1 FROM manifests WHERE manifests.id = edges.child_id))`,
    ),
    deleteRoot: database.prepare<[number, number]>(
      `DELETE FROM roots WHERE blob_id = (SELECT ?) AND repository_id = (SELECT ?)`,
    ),
    getTagHold: database.prepare<
      [string, string],
      {
        readonly repositoryId: number;
        readonly manifestId: number;
        readonly usedAtMs: number;
        readonly isPinned: 0 | 1;
        readonly isHosted: 0 | 1;
      }
    >(
      `SELECT repository_id AS repositoryId, manifest_id AS manifestId, used_at_ms AS usedAtMs,
         is_pinned AS isPinned, is_hosted AS isHosted
       FROM tags
       WHERE repository_id = (SELECT id FROM repositories WHERE path = (SELECT ?)) AND name = (SELECT ?)`,
    ),
    deleteTag: database.prepare<[number, string]>(
      `DELETE FROM tags WHERE repository_id = (SELECT ?) AND name = (SELECT ?)`,
    ),
    pinTag: database.prepare<[0 | 1, number, string]>(
      `UPDATE tags SET is_pinned = (SELECT ?) WHERE repository_id = (SELECT ?) AND name = (SELECT ?)`,
    ),

    // --- lists ---
    oldestTags: database.prepare<
      [number, number, string, number],
      TagRootColumns
    >(
      `SELECT ${TAG_COLUMNS}
       FROM tags
       CROSS JOIN repositories ON repositories.id = tags.repository_id
       ${TAG_JOINS}
       WHERE (tags.used_at_ms, tags.repository_id, tags.name) > (?, ?, ?) AND NOT tags.is_pinned
         AND NOT tags.is_hosted
       ORDER BY tags.used_at_ms, tags.repository_id, tags.name LIMIT ?`,
    ),
    oldestOthers: database.prepare<
      [number, number, number, number],
      OtherRootColumns
    >(
      `SELECT ${OTHER_COLUMNS}
       FROM roots
       CROSS JOIN repositories ON repositories.id = roots.repository_id
       ${OTHER_JOINS}
       WHERE (roots.used_at_ms, roots.blob_id, roots.repository_id) > (?, ?, ?)
         AND NOT roots.is_pinned
       ORDER BY roots.used_at_ms, roots.blob_id, roots.repository_id LIMIT ?`,
    ),
    /** Includes repositories without roots, whose rows remain when the last root is deleted. */
    nextRepositories: database.prepare<
      [string, number],
      {
        readonly upstream: string;
        readonly repository: string;
        readonly hasRoots: 0 | 1;
      }
    >(
      `SELECT upstream, name AS repository,
         EXISTS (SELECT 1 FROM tags WHERE tags.repository_id = repositories.id)
         OR EXISTS (SELECT 1 FROM roots WHERE roots.repository_id = repositories.id)
         OR EXISTS (SELECT 1 FROM hosted_manifests WHERE repository_id = repositories.id) AS hasRoots
       FROM repositories WHERE path > (SELECT ?) ORDER BY path LIMIT ?`,
    ),
    tagsOfRepository: database.prepare<
      [string, string, number],
      TagRootColumns
    >(
      `SELECT ${TAG_COLUMNS}
       FROM repositories
       CROSS JOIN tags ON tags.repository_id = repositories.id
       ${TAG_JOINS}
       WHERE repositories.path = (SELECT ?) AND tags.name > (SELECT ?)
       ORDER BY tags.name LIMIT ?`,
    ),
    rootsOfRepository: database.prepare<
      [string, number, number],
      OtherRootColumns
    >(
      `SELECT ${OTHER_COLUMNS}
       FROM repositories
       CROSS JOIN roots ON roots.repository_id = repositories.id
       ${OTHER_JOINS}
       WHERE repositories.path = (SELECT ?) AND roots.blob_id > (SELECT ?)
       ORDER BY roots.blob_id LIMIT ?`,
    ),
    getTagRoot: database.prepare<[string, string], TagRootColumns>(
      `SELECT ${TAG_COLUMNS}
       FROM repositories
       CROSS JOIN tags ON tags.repository_id = repositories.id
       ${TAG_JOINS}
       WHERE repositories.path = (SELECT ?) AND tags.name = (SELECT ?)`,
    ),
    getOtherRoot: database.prepare<[Buffer, string], OtherRootColumns>(
      `SELECT ${OTHER_COLUMNS}
       FROM repositories
       CROSS JOIN roots ON roots.repository_id = repositories.id
         AND roots.blob_id = (SELECT id FROM digests WHERE digest = (SELECT ?))
       ${OTHER_JOINS}
       WHERE repositories.path = (SELECT ?)`,
    ),

    // --- the graph ---
    getNode: database.prepare<[Buffer], NodeColumns>(
      `SELECT blobs.id, digests.digest, blobs.size_bytes AS sizeBytes,
         EXISTS (SELECT 1 FROM manifests WHERE manifests.id = blobs.id) AS isManifest,
         ${holdersOf("blobs.id")} AS holders
       FROM digests CROSS JOIN blobs ON blobs.id = digests.id
       WHERE digests.digest = (SELECT ?)`,
    ),
    listChildren: database.prepare<[Buffer, number, number], NodeColumns>(
      `SELECT edges.child_id AS id, digests.digest, blobs.size_bytes AS sizeBytes,
         edges.is_manifest OR EXISTS (SELECT 1 FROM manifests WHERE manifests.id = edges.child_id) AS isManifest,
         iif(blobs.id IS NULL, 0, ${holdersOf("edges.child_id")}) AS holders
       FROM edges
       CROSS JOIN digests ON digests.id = edges.child_id
       LEFT JOIN blobs ON blobs.id = edges.child_id
       WHERE edges.parent_id = (SELECT id FROM digests WHERE digest = (SELECT ?)) AND edges.child_id > (SELECT ?)
       ORDER BY edges.child_id LIMIT ?`,
    ),
    listStoredChildren: database.prepare<
      [number],
      { readonly id: number; readonly usedAtMs: number }
    >(
      `SELECT blobs.id, blobs.used_at_ms AS usedAtMs
       FROM edges CROSS JOIN blobs ON blobs.id = edges.child_id
       WHERE edges.parent_id = (SELECT ?)`,
    ),
    findLinkedRepository: database.prepare<
      [number],
      { readonly repositoryId: number }
    >(
      `SELECT repository_id AS repositoryId FROM links WHERE blob_id = (SELECT ?) LIMIT 1`,
    ),

    // --- condemned blobs ---
    condemnUnheld: database.prepare<[{ readonly id: number }]>(
      `INSERT INTO condemned (blob_id)
       SELECT blobs.id FROM blobs WHERE blobs.id = (SELECT :id) AND NOT ${isHeld("(SELECT :id)")}
       ON CONFLICT DO NOTHING`,
    ),
    listCondemned: prepareCondemned(database, "NOT is_being_removed"),
    listBeingRemoved: prepareCondemned(database, "is_being_removed"),
    setBeingRemoved: database.prepare<[0 | 1, number]>(
      `UPDATE condemned SET is_being_removed = (SELECT ?) WHERE blob_id = (SELECT ?)`,
    ),
    pardon: database.prepare<[number]>(
      `DELETE FROM condemned WHERE blob_id = (SELECT ?)`,
    ),
    deleteBlobById: database.prepare<[number]>(
      `DELETE FROM blobs WHERE id = (SELECT ?)`,
    ),
    /** Lists every digest that a manifest names: its children and its subject. */
    listNamedIds: database.prepare<
      [{ readonly id: number }],
      { readonly id: number }
    >(
      `SELECT child_id AS id FROM edges WHERE parent_id = (SELECT :id)
       UNION ALL
       SELECT subject_id AS id FROM manifests WHERE id = (SELECT :id) AND subject_id IS NOT NULL`,
    ),
    findDigestId: database.prepare<[Buffer], { readonly id: number }>(
      `SELECT id FROM digests WHERE digest = (SELECT ?)`,
    ),
    /** Keeps unused digests from accumulating. */
    deleteUnusedDigest: database.prepare<[{ readonly id: number }]>(
      `DELETE FROM digests
       WHERE id = (SELECT :id)
         AND NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.id = (SELECT :id))
         AND NOT EXISTS (SELECT 1 FROM edges WHERE child_id = (SELECT :id))
         AND NOT EXISTS (SELECT 1 FROM manifests WHERE subject_id = (SELECT :id))
         AND NOT EXISTS (SELECT 1 FROM intents WHERE digest_id = (SELECT :id))`,
    ),

    // --- uses ---
    touchTagsOf: database.prepare<[number, number, number]>(
      `UPDATE tags SET used_at_ms = max(used_at_ms, ?)
       WHERE manifest_id = (SELECT ?) AND repository_id = (SELECT ?)`,
    ),
    touchRoot: database.prepare<[number, number, number]>(
      `UPDATE roots SET used_at_ms = max(used_at_ms, ?)
       WHERE blob_id = (SELECT ?) AND repository_id = (SELECT ?)`,
    ),
    touchRootsOfBlob: database.prepare<[number, Buffer]>(
      `UPDATE roots SET used_at_ms = max(used_at_ms, ?)
       WHERE blob_id = (SELECT id FROM digests WHERE digest = (SELECT ?))
         AND NOT EXISTS (SELECT 1 FROM manifests WHERE manifests.id = blob_id)`,
    ),
    listIndexesAbove: database.prepare<
      [
        {
          readonly id: number;
          readonly repositoryId: number;
          readonly limit: number;
        },
      ],
      { readonly id: number }
    >(
      `SELECT edges.parent_id AS id
       FROM edges
       CROSS JOIN links ON links.blob_id = edges.parent_id AND links.repository_id = (SELECT :repositoryId)
       WHERE edges.child_id = (SELECT :id) AND edges.is_manifest LIMIT :limit`,
    ),
  };
}
