import type { Database } from "better-sqlite3";

/** The repository that {@link writeHostedTags} fills. */
export const CROWDED_PATH = "local/team/crowded";

/**
 * Writes a hosted repository with tags `t0000000`, `t0000001`, …, each of an image with a layer of its
 * own and one that all share. Uses SQL: a hundred thousand pushes would take a minute.
 */
export function writeHostedTags(database: Database, tags: number): void {
  database
    .transaction(() => {
      database.exec(`
        CREATE TEMP TABLE n (i INTEGER PRIMARY KEY);
        INSERT INTO hosted_registries (id, name) VALUES (1, 'local');
        INSERT INTO repositories (id, upstream, name, hosted_registry_id)
          VALUES (1000, 'local', 'team/crowded', 1);
        INSERT INTO media_types (id, name)
          VALUES (1, 'application/vnd.oci.image.manifest.v1+json');
      `);
      database
        .prepare(
          `INSERT INTO n WITH RECURSIVE up (i) AS
             (SELECT 0 UNION ALL SELECT i + 1 FROM up WHERE i + 1 < ?) SELECT i FROM up`,
        )
        .run(tags);
      // Images have odd ids, layers even ones; the shared layer is 1.
      database.exec(`
        INSERT INTO digests (id, digest) SELECT 1, randomblob(32);
        INSERT INTO digests (id, digest) SELECT i * 2 + 3, randomblob(32) FROM n;
        INSERT INTO digests (id, digest) SELECT i * 2 + 2, randomblob(32) FROM n;
        INSERT INTO blobs (id, size_bytes, stored_at_ms, used_at_ms)
          SELECT id, 1000, 1, 1 FROM digests;
        INSERT INTO manifests (id, media_type_id) SELECT i * 2 + 3, 1 FROM n;
        INSERT INTO edges (parent_id, child_id, is_manifest, is_foreign, size_bytes, media_type_id)
          SELECT i * 2 + 3, i * 2 + 2, 0, 0, 1000, 1 FROM n;
        INSERT INTO edges (parent_id, child_id, is_manifest, is_foreign, size_bytes, media_type_id)
          SELECT i * 2 + 3, 1, 0, 0, 1000, 1 FROM n;
        INSERT INTO links (blob_id, repository_id) SELECT id, 1000 FROM blobs;
        INSERT INTO hosted_links (blob_id, repository_id) SELECT id, 1000 FROM blobs;
        INSERT INTO hosted_manifests (repository_id, digest, blob_id, pushed_at_ms)
          SELECT 1000, digest, id, 1 FROM digests CROSS JOIN manifests USING (id);
        INSERT INTO tags (repository_id, name, manifest_id, fetched_at_ms, verified_at_ms,
            used_at_ms, is_hosted)
          SELECT 1000, printf('t%07d', i), i * 2 + 3, 1, 1, 1, 1 FROM n;
        DROP TABLE n;
      `);
    })
    .immediate();
}
