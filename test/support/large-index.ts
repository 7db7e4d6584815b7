import type { Database } from "better-sqlite3";
import { openDatabase } from "../../src/storage/local/index/open-sqlite-index.ts";

export interface LargeIndex {
  readonly blobs: number;
  readonly tags: number;
  readonly bytes: number;
}

/** Layers of an image; with its configuration and its manifest it has ten blobs. */
const LAYERS = 8;
const IMAGES_PER_REPOSITORY = 20;
/** Images that share a base layer, and all share one. */
const IMAGES_PER_BASE = 50;
const MEAN_LAYER_BYTES = 5 * 1024 * 1024;

/**
 * Writes an index as a mirror of a hundred thousand images has it: ten blobs an image, of which one
 * is shared by fifty and one by all, a tag each, pulled one after the other. Straight by SQL,
 * because by the interface it would take minutes.
 */
export function writeLargeIndex(path: string, images: number): LargeIndex {
  const database = openDatabase(path);
  try {
    database.pragma("synchronous = OFF");
    database.pragma("foreign_keys = OFF");
    return database.transaction(() => write(database, images)).immediate();
  } finally {
    database.close();
  }
}

function write(database: Database, images: number): LargeIndex {
  const mediaType = Number(
    database
      .prepare(
        "INSERT INTO media_types (name) VALUES ('application/vnd.oci.image.manifest.v1+json')",
      )
      .run().lastInsertRowid,
  );
  const prepare = {
    digest: database.prepare(
      "INSERT INTO digests (id, digest) VALUES (?, randomblob(32))",
    ),
    blob: database.prepare(
      "INSERT INTO blobs (id, size_bytes, stored_at_ms, used_at_ms) VALUES (?, ?, ?, ?)",
    ),
    manifest: database.prepare(
      "INSERT INTO manifests (id, media_type_id) VALUES (?, ?)",
    ),
    edge: database.prepare(
      "INSERT INTO edges (parent_id, child_id, is_manifest, is_foreign, size_bytes, media_type_id) VALUES (?, ?, 0, 0, ?, ?)",
    ),
    link: database.prepare(
      "INSERT OR IGNORE INTO links (blob_id, repository_id) VALUES (?, ?)",
    ),
    tag: database.prepare(
      "INSERT INTO tags (repository_id, name, manifest_id, fetched_at_ms, verified_at_ms, used_at_ms) VALUES (?, ?, ?, ?, ?, ?)",
    ),
    repository: database.prepare(
      "INSERT INTO repositories (upstream, name) VALUES ('docker.io', ?)",
    ),
  };
  let lastId = 0;
  let seed = 1;
  /** Sizes as layers have them: many small, few large. */
  const size = (): number => {
    seed = (seed * 48_271) % 2_147_483_647;
    const share = seed / 2_147_483_647;
    return Math.ceil(MEAN_LAYER_BYTES * -Math.log(1 - share));
  };
  let bytes = 0;
  const addBlob = (sizeBytes: number, atMs: number): number => {
    lastId++;
    prepare.digest.run(lastId);
    prepare.blob.run(lastId, sizeBytes, atMs, atMs);
    bytes += sizeBytes;
    return lastId;
  };
  const sharedByAll = addBlob(MEAN_LAYER_BYTES, 0);
  let base = 0;
  let repository = 0;
  for (let image = 0; image < images; image++) {
    const atMs = 1_700_000_000_000 + image * 1_000;
    if (image % IMAGES_PER_BASE === 0) base = addBlob(size(), atMs);
    if (image % IMAGES_PER_REPOSITORY === 0) {
      repository = Number(
        prepare.repository.run(`team/app-${image}`).lastInsertRowid,
      );
    }
    const manifest = addBlob(2_000, atMs);
    prepare.manifest.run(manifest, mediaType);
    prepare.link.run(manifest, repository);
    const children = [sharedByAll, base, addBlob(5_000, atMs)];
    while (children.length < LAYERS + 1) children.push(addBlob(size(), atMs));
    // Two of them are shared: ten blobs an image are its own.
    children.push(addBlob(size(), atMs), addBlob(size(), atMs));
    for (const child of children) {
      prepare.edge.run(manifest, child, 1_000, mediaType);
      prepare.link.run(child, repository);
    }
    prepare.tag.run(repository, `v${image}`, manifest, atMs, atMs, atMs);
  }
  return { blobs: lastId, tags: images, bytes };
}
