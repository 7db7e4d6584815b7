/** The step of the schema for deleted blobs. A released step is never changed. */
export const UNLINKED_SCHEMA = `
  -- Blobs that were deleted from a hosted repository while a manifest there named them. A row exists
  -- if the last line of the journal for the blob says so.
  CREATE TABLE hosted_unlinked (
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    digest BLOB NOT NULL,
    unlinked_at_ms INTEGER NOT NULL,
    PRIMARY KEY (repository_id, digest)
  ) STRICT, WITHOUT ROWID;
`;

/** The step of the schema for hosted repositories. A released step is never changed. */
export const HOSTED_SCHEMA = `
  -- The registries of hosted repositories, with the bytes of their distinct digests.
  CREATE TABLE hosted_registries (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL DEFAULT 0
  ) STRICT;
  -- NULL: a mirrored repository.
  ALTER TABLE repositories ADD COLUMN hosted_registry_id INTEGER REFERENCES hosted_registries (id);

  -- Hosted tags are never evicted, so they are not in the list of the oldest tags.
  ALTER TABLE tags ADD COLUMN is_hosted INTEGER NOT NULL DEFAULT 0;
  DROP INDEX tags_by_use;
  CREATE INDEX tags_by_use ON tags (used_at_ms, repository_id, name)
    WHERE NOT is_pinned AND NOT is_hosted;

  -- A link that holds its blob. The collection examines links that were marked after a deletion, and
  -- claims that have expired.
  CREATE TABLE hosted_links (
    blob_id INTEGER NOT NULL,
    repository_id INTEGER NOT NULL,
    -- When a client received the last answer that the blob exists; NULL after a manifest that names it.
    claimed_at_ms INTEGER,
    -- When a manifest that named the blob was deleted; 0: the link need not be examined.
    is_marked INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (blob_id, repository_id),
    FOREIGN KEY (blob_id, repository_id) REFERENCES links (blob_id, repository_id) ON DELETE CASCADE
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX hosted_links_marked ON hosted_links (blob_id, repository_id) WHERE is_marked;
  CREATE INDEX hosted_links_claimed ON hosted_links (claimed_at_ms, blob_id, repository_id)
    WHERE claimed_at_ms IS NOT NULL;

  -- The manifests of hosted repositories. The digest is repeated for lists in the order of digests.
  CREATE TABLE hosted_manifests (
    repository_id INTEGER NOT NULL,
    digest BLOB NOT NULL,
    blob_id INTEGER NOT NULL,
    pushed_at_ms INTEGER NOT NULL,
    -- NULL while a tag or a manifest of the repository names it, or its subject is in the repository.
    untagged_at_ms INTEGER,
    -- Of manifests with a subject only, for lists of referrers.
    subject_id INTEGER,
    artifact_type TEXT,
    annotations TEXT,
    PRIMARY KEY (repository_id, digest),
    FOREIGN KEY (blob_id, repository_id) REFERENCES hosted_links (blob_id, repository_id)
      ON DELETE CASCADE
  ) STRICT, WITHOUT ROWID;
  CREATE UNIQUE INDEX hosted_manifests_by_blob ON hosted_manifests (blob_id, repository_id);
  CREATE INDEX hosted_manifests_untagged ON hosted_manifests (repository_id, digest)
    WHERE untagged_at_ms IS NOT NULL;
  CREATE INDEX hosted_manifests_by_subject ON hosted_manifests (repository_id, subject_id, digest)
    WHERE subject_id IS NOT NULL;

  -- The distinct digests of a registry, and how many links of its repositories each has.
  CREATE TABLE hosted_content (
    registry_id INTEGER NOT NULL,
    blob_id INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    links INTEGER NOT NULL,
    PRIMARY KEY (registry_id, blob_id)
  ) STRICT, WITHOUT ROWID;
  CREATE TRIGGER hosted_links_inserted AFTER INSERT ON hosted_links BEGIN
    INSERT INTO hosted_content (registry_id, blob_id, size_bytes, links)
    SELECT repositories.hosted_registry_id, new.blob_id, blobs.size_bytes, 1
    FROM repositories CROSS JOIN blobs ON blobs.id = new.blob_id
    WHERE repositories.id = new.repository_id
    ON CONFLICT (registry_id, blob_id) DO UPDATE SET links = links + 1;
  END;
  CREATE TRIGGER hosted_links_deleted AFTER DELETE ON hosted_links BEGIN
    UPDATE hosted_content SET links = links - 1
    WHERE blob_id = old.blob_id AND registry_id =
      (SELECT hosted_registry_id FROM repositories WHERE id = old.repository_id);
    DELETE FROM hosted_content
    WHERE links = 0 AND blob_id = old.blob_id AND registry_id =
      (SELECT hosted_registry_id FROM repositories WHERE id = old.repository_id);
  END;
  CREATE TRIGGER hosted_content_inserted AFTER INSERT ON hosted_content BEGIN
    UPDATE hosted_registries SET bytes = bytes + new.size_bytes WHERE id = new.registry_id;
  END;
  CREATE TRIGGER hosted_content_deleted AFTER DELETE ON hosted_content BEGIN
    UPDATE hosted_registries SET bytes = bytes - old.size_bytes WHERE id = old.registry_id;
  END;

  -- Upload sessions. Their bytes are in files of the same names.
  CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    algorithm TEXT NOT NULL,
    started_at_ms INTEGER NOT NULL,
    touched_at_ms INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX uploads_by_repository ON uploads (repository_id);

  -- Set in the transaction that lists the blob for removal: its bytes may be gone from then on.
  ALTER TABLE condemned ADD COLUMN is_being_removed INTEGER NOT NULL DEFAULT 0;
  CREATE INDEX condemned_being_removed ON condemned (blob_id) WHERE is_being_removed;
`;
