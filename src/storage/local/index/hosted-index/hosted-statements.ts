import type { Database } from "better-sqlite3";
import { mediaTypeJoins } from "../index-statements.ts";

/*
 * The statements of hosted repositories, prepared once; index-statements.test.ts reads their query
 * plans. Rows are addressed by their ids, repositories in lists by their paths. Without INDEXED BY
 * SQLite prefers the primary key, and would read every manifest of the repository.
 */

interface IdColumn {
  readonly id: number;
}

/** A link of a hosted repository. */
export interface LinkId {
  readonly blobId: number;
  readonly repositoryId: number;
}

interface HostedManifestParameters extends LinkId {
  readonly digest: Buffer;
  readonly atMs: number;
  readonly subjectId: number | null;
  readonly artifactType: string | null;
  readonly annotations: string | null;
}

export interface ReferrerColumns {
  readonly digest: Buffer;
  readonly sizeBytes: number;
  readonly mediaType: string;
  readonly artifactType: string | null;
  readonly annotations: string | null;
}

export type HostedStatements = ReturnType<typeof prepareHostedStatements>;

export function prepareHostedStatements(database: Database) {
  return {
    // --- registries and repositories ---
    getRegistry: database.prepare<
      [string],
      IdColumn & { readonly bytes: number }
    >(`SELECT id, bytes FROM hosted_registries WHERE name = (SELECT ?)`),
    insertRegistry: database.prepare<[string]>(
      `INSERT INTO hosted_registries (name) VALUES (?)`,
    ),
    getRepository: database.prepare<
      [string],
      IdColumn & { readonly registryId: number | null }
    >(
      `SELECT id, hosted_registry_id AS registryId FROM repositories WHERE path = (SELECT ?)`,
    ),
    setRegistry: database.prepare<[number, number]>(
      `UPDATE repositories SET hosted_registry_id = (SELECT ?) WHERE id = (SELECT ?)`,
    ),
    hasContent: database.prepare<[number, number]>(
      `SELECT 1 FROM hosted_content WHERE registry_id = (SELECT ?) AND blob_id = (SELECT ?)`,
    ),

    // --- links ---
    /** Finds a blob that a link may be added to: not one whose bytes are being removed. */
    findUsableBlob: database.prepare<
      [Buffer],
      IdColumn & { readonly sizeBytes: number }
    >(
      `SELECT blobs.id, blobs.size_bytes AS sizeBytes
       FROM digests CROSS JOIN blobs ON blobs.id = digests.id
       WHERE digests.digest = (SELECT ?)
         AND NOT EXISTS (
           SELECT 1 FROM condemned WHERE condemned.blob_id = blobs.id AND is_being_removed
         )`,
    ),
    isLinked: database.prepare<[number, string]>(
      `SELECT 1 FROM links
       WHERE blob_id = (SELECT ?) AND repository_id = (SELECT id FROM repositories WHERE path = (SELECT ?))`,
    ),
    findLink: database.prepare<[Buffer, number], LinkId>(
      `SELECT blob_id AS blobId, repository_id AS repositoryId FROM hosted_links
       WHERE blob_id = (SELECT id FROM digests WHERE digest = (SELECT ?)) AND repository_id = (SELECT ?)`,
    ),
    putLink: database.prepare<[number, number, number | null]>(
      `INSERT INTO hosted_links (blob_id, repository_id, claimed_at_ms) VALUES (?, ?, ?)
       ON CONFLICT (blob_id, repository_id) DO UPDATE SET
         claimed_at_ms = max(coalesce(claimed_at_ms, excluded.claimed_at_ms), excluded.claimed_at_ms)`,
    ),
    claimLink: database.prepare<[number, Buffer, string]>(
      `UPDATE hosted_links SET claimed_at_ms = max(coalesce(claimed_at_ms, 0), ?)
       WHERE blob_id = (SELECT id FROM digests WHERE digest = (SELECT ?))
         AND repository_id = (SELECT id FROM repositories WHERE path = (SELECT ?))`,
    ),
    /** The foreign keys delete the link's rows of hosted repositories. */
    deleteLink: database.prepare<[number, number]>(
      `DELETE FROM links WHERE blob_id = (SELECT ?) AND repository_id = (SELECT ?)`,
    ),
    /** Ends the claims of everything that a manifest names, and of the manifest itself. */
    settleLinks: database.prepare<[LinkId]>(
      `UPDATE hosted_links SET claimed_at_ms = NULL, is_marked = 0
       WHERE repository_id = (SELECT :repositoryId)
         AND blob_id IN (SELECT child_id FROM edges WHERE parent_id = (SELECT :blobId) UNION ALL SELECT :blobId)
         AND (claimed_at_ms IS NOT NULL OR is_marked)`,
    ),
    settleLink: database.prepare<[LinkId]>(
      `UPDATE hosted_links SET claimed_at_ms = NULL, is_marked = 0
       WHERE blob_id = (SELECT :blobId) AND repository_id = (SELECT :repositoryId)`,
    ),
    unmarkLink: database.prepare<[LinkId]>(
      `UPDATE hosted_links SET is_marked = 0
       WHERE blob_id = (SELECT :blobId) AND repository_id = (SELECT :repositoryId)`,
    ),
    markChildren: database.prepare<[LinkId & { readonly atMs: number }]>(
      `UPDATE hosted_links SET is_marked = (SELECT :atMs)
       WHERE repository_id = (SELECT :repositoryId)
         AND blob_id IN (SELECT child_id FROM edges WHERE parent_id = (SELECT :blobId))`,
    ),
    /** Lists repositories with a manifest that names the blob, except as a foreign layer. */
    listNamingRepositories: database.prepare<
      [number],
      { readonly repositoryId: number }
    >(
      `SELECT hosted_manifests.repository_id AS repositoryId
       FROM edges
       CROSS JOIN hosted_manifests ON hosted_manifests.blob_id = edges.parent_id
       WHERE edges.child_id = (SELECT ?) AND NOT edges.is_foreign
         AND NOT EXISTS (
           SELECT 1 FROM hosted_unlinked
           WHERE hosted_unlinked.repository_id = hosted_manifests.repository_id
             AND hosted_unlinked.digest = (SELECT digest FROM digests WHERE id = edges.child_id))`,
    ),
    listBlobRepositories: database.prepare<
      [Buffer, number, number],
      { readonly upstream: string; readonly name: string }
    >(
      `SELECT repositories.upstream, repositories.name
       FROM links CROSS JOIN repositories ON repositories.id = links.repository_id
       WHERE links.blob_id = (SELECT id FROM digests WHERE digest = (SELECT ?))
         AND links.repository_id > (SELECT ?)
       ORDER BY links.repository_id LIMIT ?`,
    ),
    /** Deletes the root of a blob that was found on disk: a repository holds the blob now. */
    deleteUnclaimedRoot: database.prepare<[number]>(
      `DELETE FROM roots
       WHERE blob_id = (SELECT ?) AND repository_id = (SELECT id FROM repositories WHERE path = '/')
         AND NOT is_pinned`,
    ),

    // --- manifests ---
    getManifest: database.prepare<
      [Buffer, number],
      {
        readonly blobId: number;
        readonly untaggedAtMs: number | null;
        readonly mediaType: string;
      }
    >(
      `SELECT hosted_manifests.blob_id AS blobId, untagged_at_ms AS untaggedAtMs,
         media_types.name AS mediaType
       FROM hosted_manifests
       ${mediaTypeJoins("hosted_manifests.blob_id", "hosted_manifests.repository_id")}
       WHERE hosted_manifests.digest = (SELECT ?) AND hosted_manifests.repository_id = (SELECT ?)`,
    ),
    isManifest: database.prepare<[LinkId]>(
      `SELECT 1 FROM hosted_manifests WHERE blob_id = (SELECT :blobId) AND repository_id = (SELECT :repositoryId)`,
    ),
    putManifest: database.prepare<[HostedManifestParameters]>(
      `INSERT INTO hosted_manifests (repository_id, digest, blob_id, pushed_at_ms, untagged_at_ms,
         subject_id, artifact_type, annotations)
       VALUES (:repositoryId, :digest, :blobId, :atMs, :atMs, :subjectId, :artifactType, :annotations)
       ON CONFLICT (repository_id, digest) DO UPDATE SET
         subject_id = excluded.subject_id,
         artifact_type = excluded.artifact_type,
         annotations = excluded.annotations`,
    ),
    /** Returns whether a tag, a manifest or the subject of the manifest in the repository needs it. */
    getNeed: database.prepare<
      [LinkId],
      { readonly untaggedAtMs: number | null; readonly isNeeded: 0 | 1 }
    >(
      `SELECT untagged_at_ms AS untaggedAtMs, EXISTS (
           SELECT 1 FROM tags WHERE manifest_id = (SELECT :blobId) AND tags.repository_id = (SELECT :repositoryId)
         ) OR EXISTS (
           SELECT 1 FROM edges
           CROSS JOIN hosted_manifests AS parent ON parent.blob_id = edges.parent_id
             AND parent.repository_id = (SELECT :repositoryId)
           WHERE edges.child_id = (SELECT :blobId)
         ) OR EXISTS (
           SELECT 1 FROM hosted_manifests AS subject
           WHERE subject.blob_id = hosted_manifests.subject_id
             AND subject.repository_id = (SELECT :repositoryId)
         ) AS isNeeded
       FROM hosted_manifests
       WHERE blob_id = (SELECT :blobId) AND repository_id = (SELECT :repositoryId)`,
    ),
    setUntagged: database.prepare<[LinkId & { readonly atMs: number | null }]>(
      `UPDATE hosted_manifests SET untagged_at_ms = (SELECT :atMs)
       WHERE blob_id = (SELECT :blobId) AND repository_id = (SELECT :repositoryId)`,
    ),
    /** Lists manifests of the repository that a manifest names, and those whose subject it is. */
    listDependents: database.prepare<[LinkId], LinkId>(
      `SELECT child.blob_id AS blobId, child.repository_id AS repositoryId
       FROM edges
       CROSS JOIN hosted_manifests AS child ON child.blob_id = edges.child_id
         AND child.repository_id = (SELECT :repositoryId)
       WHERE edges.parent_id = (SELECT :blobId)
       UNION ALL
       SELECT blob_id, repository_id
       FROM hosted_manifests INDEXED BY hosted_manifests_by_subject
       WHERE repository_id = (SELECT :repositoryId) AND subject_id = (SELECT :blobId)`,
    ),
    /** Lists manifests of the repository that name the blob. */
    listParents: database.prepare<[LinkId], LinkId>(
      `SELECT parent.blob_id AS blobId, parent.repository_id AS repositoryId
       FROM edges
       CROSS JOIN hosted_manifests AS parent ON parent.blob_id = edges.parent_id
         AND parent.repository_id = (SELECT :repositoryId)
       WHERE edges.child_id = (SELECT :blobId)`,
    ),
    /** Lists the repositories in which the manifest is hosted. */
    listHosts: database.prepare<[number], LinkId>(
      `SELECT blob_id AS blobId, repository_id AS repositoryId
       FROM hosted_manifests WHERE blob_id = (SELECT ?)`,
    ),
    deletePinnedRoot: database.prepare<[number, number]>(
      `DELETE FROM roots WHERE blob_id = (SELECT ?) AND repository_id = (SELECT ?)`,
    ),

    // --- tags ---
    getTag: database.prepare<
      [number, string],
      {
        readonly manifestId: number;
        readonly digest: Buffer;
        readonly pushedAtMs: number;
      }
    >(
      `SELECT tags.manifest_id AS manifestId, digests.digest, tags.fetched_at_ms AS pushedAtMs
       FROM tags CROSS JOIN digests ON digests.id = tags.manifest_id
       WHERE tags.repository_id = (SELECT ?) AND tags.name = (SELECT ?)`,
    ),
    listTagsOf: database.prepare<[LinkId], { readonly name: string }>(
      `SELECT name FROM tags
       WHERE manifest_id = (SELECT :blobId) AND repository_id = (SELECT :repositoryId) ORDER BY name`,
    ),
    putTag: database.prepare<
      [LinkId & { readonly tag: string; readonly atMs: number }]
    >(
      `INSERT INTO tags (repository_id, name, manifest_id, fetched_at_ms, verified_at_ms, used_at_ms,
         is_hosted)
       VALUES (:repositoryId, :tag, :blobId, :atMs, :atMs, :atMs, 1)
       ON CONFLICT (repository_id, name) DO UPDATE SET
         manifest_id = excluded.manifest_id,
         fetched_at_ms = excluded.fetched_at_ms,
         verified_at_ms = excluded.verified_at_ms,
         gone_at_ms = NULL,
         is_hosted = 1`,
    ),
    pinTag: database.prepare<[number, string]>(
      `UPDATE tags SET is_pinned = 1 WHERE repository_id = (SELECT ?) AND name = (SELECT ?)`,
    ),
    deleteTag: database.prepare<[number, string]>(
      `DELETE FROM tags WHERE repository_id = (SELECT ?) AND name = (SELECT ?)`,
    ),
    deleteTagsOf: database.prepare<[LinkId]>(
      `DELETE FROM tags WHERE manifest_id = (SELECT :blobId) AND repository_id = (SELECT :repositoryId)`,
    ),

    // --- collection ---
    listMarked: database.prepare<[number, number], LinkId>(
      `SELECT blob_id AS blobId, repository_id AS repositoryId
       FROM hosted_links WHERE is_marked AND is_marked < (SELECT ?) AND blob_id > 0 ORDER BY blob_id, repository_id LIMIT ?`,
    ),
    listExpired: database.prepare<[number, number], LinkId>(
      `SELECT blob_id AS blobId, repository_id AS repositoryId
       FROM hosted_links WHERE claimed_at_ms IS NOT NULL AND claimed_at_ms < (SELECT ?)
       ORDER BY claimed_at_ms LIMIT ?`,
    ),
    getClaim: database.prepare<
      [LinkId],
      { readonly claimedAtMs: number | null }
    >(
      `SELECT claimed_at_ms AS claimedAtMs FROM hosted_links
       WHERE blob_id = (SELECT :blobId) AND repository_id = (SELECT :repositoryId)`,
    ),
    /** Lists manifests that name the blob. Iterated with a bound: a hundred thousand of other repositories may name it. */
    eachParent: database.prepare<[number], IdColumn>(
      `SELECT parent_id AS id FROM edges WHERE child_id = (SELECT ?)`,
    ),
    eachManifest: database.prepare<[number], IdColumn>(
      `SELECT blob_id AS id FROM hosted_manifests WHERE repository_id = (SELECT ?)`,
    ),
    hasEdge: database.prepare<[number, number]>(
      `SELECT 1 FROM edges WHERE parent_id = (SELECT ?) AND child_id = (SELECT ?)`,
    ),

    // --- lists ---
    listReferrers: database.prepare<[string, Buffer, Buffer], ReferrerColumns>(
      `SELECT hosted_manifests.digest, blobs.size_bytes AS sizeBytes, media_types.name AS mediaType,
         hosted_manifests.artifact_type AS artifactType, hosted_manifests.annotations
       FROM hosted_manifests INDEXED BY hosted_manifests_by_subject
       CROSS JOIN blobs ON blobs.id = hosted_manifests.blob_id
       ${mediaTypeJoins("hosted_manifests.blob_id", "hosted_manifests.repository_id")}
       WHERE hosted_manifests.repository_id = (SELECT id FROM repositories WHERE path = (SELECT ?))
         AND hosted_manifests.subject_id = (SELECT id FROM digests WHERE digest = (SELECT ?))
         AND hosted_manifests.digest > (SELECT ?)
       ORDER BY hosted_manifests.digest`,
    ),
    listTags: database.prepare<
      [string, string, number],
      {
        readonly tag: string;
        readonly digest: Buffer;
        readonly pushedAtMs: number;
        readonly pulledAtMs: number;
      }
    >(
      `SELECT tags.name AS tag, digests.digest, tags.fetched_at_ms AS pushedAtMs,
         max(tags.used_at_ms, tags.fetched_at_ms) AS pulledAtMs
       FROM tags CROSS JOIN digests ON digests.id = tags.manifest_id
       WHERE tags.repository_id = (SELECT id FROM repositories WHERE path = (SELECT ?))
         AND tags.name > (SELECT ?) AND tags.is_hosted
       ORDER BY tags.name LIMIT ?`,
    ),
    listUntagged: database.prepare<
      [string, Buffer, number],
      {
        readonly digest: Buffer;
        readonly sizeBytes: number;
        readonly untaggedAtMs: number;
      }
    >(
      `SELECT hosted_manifests.digest, blobs.size_bytes AS sizeBytes,
         hosted_manifests.untagged_at_ms AS untaggedAtMs
       FROM hosted_manifests INDEXED BY hosted_manifests_untagged
       CROSS JOIN blobs ON blobs.id = hosted_manifests.blob_id
       WHERE hosted_manifests.repository_id = (SELECT id FROM repositories WHERE path = (SELECT ?))
         AND hosted_manifests.digest > (SELECT ?) AND hosted_manifests.untagged_at_ms IS NOT NULL
       ORDER BY hosted_manifests.digest LIMIT ?`,
    ),
    listRepositories: database.prepare<
      [string, string, number],
      { readonly name: string }
    >(
      `SELECT name FROM repositories
       WHERE path > (SELECT ?) AND path < (SELECT ?)
         AND EXISTS (SELECT 1 FROM hosted_manifests WHERE repository_id = repositories.id)
       ORDER BY path LIMIT ?`,
    ),
    listRegistries: database.prepare<
      [],
      { readonly registry: string; readonly bytes: number }
    >(
      `SELECT name AS registry, bytes FROM hosted_registries
       WHERE name > '' AND EXISTS (SELECT 1 FROM hosted_content WHERE registry_id = hosted_registries.id)
       ORDER BY name`,
    ),
  };
}
