import type { Database } from "better-sqlite3";
import { IndexError } from "../../metadata-index.ts";
import {
  HOSTED_SCHEMA,
  UNLINKED_SCHEMA,
} from "./hosted-index/hosted-schema.ts";
import { RECORDS_SCHEMA } from "./documents/record-rows.ts";

/**
 * The steps of the schema. There is no way back; `user_version` is the number of applied steps. A
 * released step is never changed.
 */
const MIGRATIONS: readonly string[] = [
  `
  -- Every known digest, stored or only named by a manifest: 32 bytes for sha256, 64 for sha512.
  CREATE TABLE digests (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) IN (32, 64))
  ) STRICT;

  CREATE TABLE media_types (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
  ) STRICT;

  CREATE TABLE repositories (
    id INTEGER PRIMARY KEY,
    upstream TEXT NOT NULL,
    name TEXT NOT NULL,
    -- The order of the catalog; an upstream's name holds no slash, so a path is one repository's.
    path TEXT NOT NULL GENERATED ALWAYS AS (upstream || '/' || name) STORED UNIQUE
  ) STRICT;

  -- Stored content. A manifest has a row in both tables.
  CREATE TABLE blobs (
    id INTEGER PRIMARY KEY REFERENCES digests (id),
    size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
    stored_at_ms INTEGER NOT NULL,
    used_at_ms INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE manifests (
    id INTEGER PRIMARY KEY REFERENCES blobs (id) ON DELETE CASCADE,
    media_type_id INTEGER NOT NULL REFERENCES media_types (id),
    subject_id INTEGER REFERENCES digests (id)
  ) STRICT;
  CREATE INDEX manifests_by_subject ON manifests (subject_id);

  -- A blob's bytes, or a 2xx to HEAD, came from the upstream for the repository.
  CREATE TABLE links (
    blob_id INTEGER NOT NULL REFERENCES blobs (id) ON DELETE CASCADE,
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    PRIMARY KEY (blob_id, repository_id)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX links_by_repository ON links (repository_id);

  -- The descriptors in stored manifests; a child need not be stored.
  CREATE TABLE edges (
    parent_id INTEGER NOT NULL REFERENCES manifests (id) ON DELETE CASCADE,
    child_id INTEGER NOT NULL REFERENCES digests (id),
    is_manifest INTEGER NOT NULL,
    is_foreign INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    media_type_id INTEGER NOT NULL REFERENCES media_types (id),
    PRIMARY KEY (parent_id, child_id)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX edges_by_child ON edges (child_id);

  CREATE TABLE tags (
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    name TEXT NOT NULL,
    manifest_id INTEGER NOT NULL REFERENCES manifests (id) ON DELETE CASCADE,
    fetched_at_ms INTEGER NOT NULL,
    verified_at_ms INTEGER NOT NULL,
    used_at_ms INTEGER NOT NULL,
    PRIMARY KEY (repository_id, name)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX tags_by_manifest ON tags (manifest_id);

  CREATE TABLE referrers (
    id INTEGER PRIMARY KEY,
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    subject_id INTEGER NOT NULL REFERENCES digests (id),
    body BLOB NOT NULL,
    verified_at_ms INTEGER NOT NULL,
    UNIQUE (subject_id, repository_id)
  ) STRICT;

  -- One row, kept by the triggers: sums over a million rows would take longer than a request may.
  CREATE TABLE totals (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    blobs INTEGER NOT NULL,
    blob_bytes INTEGER NOT NULL,
    manifests INTEGER NOT NULL,
    tags INTEGER NOT NULL
  ) STRICT;
  INSERT INTO totals VALUES (1, 0, 0, 0, 0);
  CREATE TRIGGER blobs_inserted AFTER INSERT ON blobs BEGIN
    UPDATE totals SET blobs = blobs + 1, blob_bytes = blob_bytes + new.size_bytes;
  END;
  CREATE TRIGGER blobs_resized AFTER UPDATE OF size_bytes ON blobs BEGIN
    UPDATE totals SET blob_bytes = blob_bytes + new.size_bytes - old.size_bytes;
  END;
  CREATE TRIGGER blobs_deleted AFTER DELETE ON blobs BEGIN
    UPDATE totals SET blobs = blobs - 1, blob_bytes = blob_bytes - old.size_bytes;
  END;
  CREATE TRIGGER manifests_inserted AFTER INSERT ON manifests BEGIN
    UPDATE totals SET manifests = manifests + 1;
  END;
  CREATE TRIGGER manifests_deleted AFTER DELETE ON manifests BEGIN
    UPDATE totals SET manifests = manifests - 1;
  END;
  CREATE TRIGGER tags_inserted AFTER INSERT ON tags BEGIN
    UPDATE totals SET tags = tags + 1;
  END;
  CREATE TRIGGER tags_deleted AFTER DELETE ON tags BEGIN
    UPDATE totals SET tags = tags - 1;
  END;
  `,
  `
  -- Roots other than tags: a manifest that was requested by digest or that a tag pointed to before,
  -- and a blob that no stored manifest names.
  CREATE TABLE roots (
    blob_id INTEGER NOT NULL REFERENCES blobs (id) ON DELETE CASCADE,
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    used_at_ms INTEGER NOT NULL,
    is_pinned INTEGER NOT NULL,
    PRIMARY KEY (blob_id, repository_id)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX roots_by_repository ON roots (repository_id, blob_id);
  CREATE INDEX roots_by_use ON roots (used_at_ms, blob_id, repository_id) WHERE NOT is_pinned;
  ALTER TABLE tags ADD COLUMN is_pinned INTEGER NOT NULL DEFAULT 0;
  CREATE INDEX tags_by_use ON tags (used_at_ms, repository_id, name) WHERE NOT is_pinned;

  -- Owner of content that was found on disk and not requested since; no client can name it.
  INSERT INTO repositories (upstream, name) VALUES ('', '');

  -- Evicted blobs whose bytes are not deleted yet; a blob that is needed again meanwhile stays.
  CREATE TABLE condemned (
    blob_id INTEGER PRIMARY KEY REFERENCES blobs (id) ON DELETE CASCADE
  ) STRICT;

  INSERT INTO roots (blob_id, repository_id, used_at_ms, is_pinned)
  SELECT links.blob_id, links.repository_id, blobs.used_at_ms, 0
  FROM links
  CROSS JOIN blobs ON blobs.id = links.blob_id
  CROSS JOIN manifests ON manifests.id = links.blob_id
  WHERE NOT EXISTS (
      SELECT 1 FROM tags
      WHERE tags.manifest_id = links.blob_id AND tags.repository_id = links.repository_id
    )
    AND NOT EXISTS (
      SELECT 1 FROM edges
      CROSS JOIN links AS above
        ON above.blob_id = edges.parent_id AND above.repository_id = links.repository_id
      WHERE edges.child_id = links.blob_id
    );
  INSERT INTO roots (blob_id, repository_id, used_at_ms, is_pinned)
  SELECT links.blob_id, links.repository_id, blobs.used_at_ms, 0
  FROM links
  CROSS JOIN blobs ON blobs.id = links.blob_id
  WHERE NOT EXISTS (SELECT 1 FROM manifests WHERE manifests.id = links.blob_id)
    AND NOT EXISTS (SELECT 1 FROM edges WHERE edges.child_id = links.blob_id);
  `,
  `
  -- Verified bytes that are about to be published, with everything that their rows need; the next
  -- start settles those that a crash interrupted.
  CREATE TABLE intents (
    digest_id INTEGER PRIMARY KEY REFERENCES digests (id),
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    size_bytes INTEGER NOT NULL,
    media_type_id INTEGER REFERENCES media_types (id)
  ) STRICT;

  CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- A new id for each process. A clean stop also writes it to a file, which reveals an older copy.
    run_id TEXT NOT NULL,
    -- The row after which the background scrub continues.
    scrubbed_id INTEGER NOT NULL
  ) STRICT;
  INSERT INTO state VALUES (1, '', 0);
  `,
  `
  -- Pins whose manifest was missing in a check or in a rebuild; they are restored with the manifest.
  -- The reference is the name of a tag or the text of a digest.
  CREATE TABLE lost_pins (
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    reference TEXT NOT NULL,
    PRIMARY KEY (repository_id, reference)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX roots_pinned ON roots (blob_id, repository_id) WHERE is_pinned;
  `,
  `
  -- The media type from the repository's upstream, for a manifest whose bytes do not state it; NULL if
  -- it is the one in manifests, which is the first that was received.
  ALTER TABLE links ADD COLUMN media_type_id INTEGER REFERENCES media_types (id);
  `,
  `
  -- When the bytes were last compared with the digest.
  ALTER TABLE blobs ADD COLUMN verified_at_ms INTEGER NOT NULL DEFAULT 0;
  `,
  `
  -- Any client can name subjects, so only lists of linked subjects are kept. They are deleted with the
  -- link, and their bytes count for the limits.
  CREATE TABLE linked_referrers (
    id INTEGER PRIMARY KEY,
    subject_id INTEGER NOT NULL,
    repository_id INTEGER NOT NULL,
    body BLOB NOT NULL,
    verified_at_ms INTEGER NOT NULL,
    UNIQUE (subject_id, repository_id),
    FOREIGN KEY (subject_id, repository_id) REFERENCES links (blob_id, repository_id) ON DELETE CASCADE
  ) STRICT;
  INSERT INTO linked_referrers (subject_id, repository_id, body, verified_at_ms)
  SELECT subject_id, referrers.repository_id, body, verified_at_ms
  FROM referrers
  JOIN links ON links.blob_id = referrers.subject_id AND links.repository_id = referrers.repository_id;
  DROP TABLE referrers;
  ALTER TABLE linked_referrers RENAME TO referrers;
  CREATE INDEX referrers_by_age ON referrers (verified_at_ms);
  CREATE INDEX intents_by_repository ON intents (repository_id);

  ALTER TABLE totals ADD COLUMN lists INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE totals ADD COLUMN list_bytes INTEGER NOT NULL DEFAULT 0;
  UPDATE totals SET lists = (SELECT count(*) FROM referrers),
    list_bytes = (SELECT coalesce(sum(length(body)), 0) FROM referrers);
  CREATE TRIGGER referrers_inserted AFTER INSERT ON referrers BEGIN
    UPDATE totals SET lists = lists + 1, list_bytes = list_bytes + length(new.body);
  END;
  CREATE TRIGGER referrers_replaced AFTER UPDATE OF body ON referrers BEGIN
    UPDATE totals SET list_bytes = list_bytes + length(new.body) - length(old.body);
  END;
  CREATE TRIGGER referrers_deleted AFTER DELETE ON referrers BEGIN
    UPDATE totals SET lists = lists - 1, list_bytes = list_bytes - length(old.body);
  END;

  DELETE FROM digests
  WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.id = digests.id)
    AND NOT EXISTS (SELECT 1 FROM edges WHERE child_id = digests.id)
    AND NOT EXISTS (SELECT 1 FROM manifests WHERE subject_id = digests.id)
    AND NOT EXISTS (SELECT 1 FROM intents WHERE digest_id = digests.id);
  DELETE FROM repositories
  WHERE upstream <> ''
    AND NOT EXISTS (SELECT 1 FROM links WHERE repository_id = repositories.id)
    AND NOT EXISTS (SELECT 1 FROM tags WHERE repository_id = repositories.id)
    AND NOT EXISTS (SELECT 1 FROM roots WHERE repository_id = repositories.id)
    AND id NOT IN (SELECT repository_id FROM intents)
    AND id NOT IN (SELECT repository_id FROM lost_pins);
  `,
  `
  -- Written after each checkpoint, so that the thread of the checkpoint restarts the log.
  ALTER TABLE state ADD COLUMN checkpoints INTEGER NOT NULL DEFAULT 0;
  `,
  `
  -- When the upstream first answered that the tag does not exist; NULL if it exists. A rebuilt index
  -- starts with the next such answer.
  ALTER TABLE tags ADD COLUMN gone_at_ms INTEGER;
  `,
  `
  -- The last list of tags from the upstream, for use while the upstream is not available. A rebuilt
  -- index has none until the next answer.
  CREATE TABLE tag_lists (
    repository_id INTEGER PRIMARY KEY REFERENCES repositories (id) ON DELETE CASCADE,
    body BLOB NOT NULL,
    fetched_at_ms INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX tag_lists_by_age ON tag_lists (fetched_at_ms);
  CREATE TRIGGER tag_lists_inserted AFTER INSERT ON tag_lists BEGIN
    UPDATE totals SET lists = lists + 1, list_bytes = list_bytes + length(new.body);
  END;
  CREATE TRIGGER tag_lists_replaced AFTER UPDATE OF body ON tag_lists BEGIN
    UPDATE totals SET list_bytes = list_bytes + length(new.body) - length(old.body);
  END;
  CREATE TRIGGER tag_lists_deleted AFTER DELETE ON tag_lists BEGIN
    UPDATE totals SET lists = lists - 1, list_bytes = list_bytes - length(old.body);
  END;
  `,
  HOSTED_SCHEMA,
  UNLINKED_SCHEMA,
  RECORDS_SCHEMA,
];

/** The `user_version` of an index with the newest schema. */
export const SCHEMA_VERSION = MIGRATIONS.length;

/**
 * Migrates an index to the newest schema, each step in its own transaction.
 *
 * @param steps fewer steps, for tests that start from an older schema
 * @throws IndexError if a newer version wrote the index
 */
export function migrate(
  database: Database,
  steps: number = SCHEMA_VERSION,
): void {
  const version = database.pragma("user_version", { simple: true }) as number;
  if (version > SCHEMA_VERSION) {
    throw new IndexError(
      `got index schema ${version}; expected at most ${SCHEMA_VERSION}: start the newer version of the program that wrote it`,
    );
  }
  for (const [step, sql] of MIGRATIONS.slice(0, steps).entries()) {
    if (step < version) continue;
    database
      .transaction(() => {
        database.exec(sql);
        database.pragma(`user_version = ${step + 1}`);
      })
      .immediate();
  }
}
