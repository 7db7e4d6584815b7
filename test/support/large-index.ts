import type { Database } from "better-sqlite3";
import { openDatabase } from "../../src/storage/local/index/open-sqlite-index.ts";

export interface LargeIndex {
  readonly blobs: number;
  readonly tags: number;
  readonly bytes: number;
}

/** Layers that belong to one image; with its configuration and manifest it has ten blobs of its own. */
const LAYERS = 8;
const IMAGES_PER_REPOSITORY = 20;
/** Number of images that share a base layer; another layer is shared by all images. */
const IMAGES_PER_BASE = 50;
const MEAN_LAYER_BYTES = 5 * 1024 * 1024;

/**
 * Writes the index of a mirror with many images. Each image has a tag and ten blobs of its own, shares
 * a base layer with 49 others and another layer with all; the images are pulled one per second. Uses
 * SQL, because the interface of the index would take minutes for a hundred thousand images.
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
  /** Exponentially distributed, as sizes of layers are: many small, few large. */
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
    // Two children are shared: an image has ten blobs of its own.
    children.push(addBlob(size(), atMs), addBlob(size(), atMs));
    for (const child of children) {
      prepare.edge.run(manifest, child, 1_000, mediaType);
      prepare.link.run(child, repository);
    }
    prepare.tag.run(repository, `v${image}`, manifest, atMs, atMs, atMs);
  }
  return { blobs: lastId, tags: images, bytes };
}
