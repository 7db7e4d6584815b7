import assert from "node:assert/strict";
import type { BlobStore } from "../../src/storage/blob-store.ts";
import type { MetadataIndex } from "../../src/storage/metadata-index.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import type { RepositoryKey, Tag } from "../../src/oci/reference.ts";
import type {
  TestBlob,
  TestImage,
  TestIndex,
  TestManifest,
} from "./image-builder.ts";

/** Where images are stored: an opened cache. */
export interface ImageStore {
  readonly blobs: BlobStore;
  readonly index: MetadataIndex;
}

/** Writes a manifest as the mirror does once it has verified it. */
export async function storeManifest(
  { blobs, index }: ImageStore,
  key: RepositoryKey,
  { bytes, digest, mediaType }: TestManifest,
  atMs = 1,
): Promise<void> {
  const parsed = parseManifest(bytes, mediaType);
  assert(parsed.ok);
  const { children, subject } = parsed;
  await index.beginFill(key, { digest, sizeBytes: bytes.length, mediaType });
  await blobs.put(digest, bytes);
  await index.recordBlob(key, {
    digest,
    sizeBytes: bytes.length,
    storedAtMs: atMs,
    manifest: { mediaType: parsed.mediaType, children, subject },
  });
}

/** Writes a blob as a fill does. */
export async function storeBlob(
  { blobs, index }: ImageStore,
  key: RepositoryKey,
  blob: TestBlob,
  atMs = 1,
): Promise<void> {
  const { digest, sizeBytes } = blob;
  const partial = await blobs.beginWrite({
    kind: "fill",
    digest,
    expectedBytes: sizeBytes,
  });
  if (partial.writtenBytes < sizeBytes) {
    await partial.append([blob.bytes().subarray(partial.writtenBytes)]);
  }
  assert.equal(await partial.hash.digest(), digest);
  await index.beginFill(key, { digest, sizeBytes });
  await partial.commit(digest);
  await index.recordBlob(key, { digest, sizeBytes, storedAtMs: atMs });
}

/** A whole image under a tag. */
export async function storeImage(
  store: ImageStore,
  key: RepositoryKey,
  image: TestImage,
  tag: Tag,
  atMs = 1,
): Promise<void> {
  await storeManifest(store, key, image.manifest, atMs);
  for (const blob of image.blobs) await storeBlob(store, key, blob, atMs);
  await store.index.putTag(key, tag, image.manifest.digest, atMs);
}

/** An index with all its images under a tag. */
export async function storeIndex(
  store: ImageStore,
  key: RepositoryKey,
  { manifest, images }: TestIndex,
  tag: Tag,
  atMs = 1,
): Promise<void> {
  await storeManifest(store, key, manifest, atMs);
  for (const image of images) {
    await storeManifest(store, key, image.manifest, atMs);
    for (const blob of image.blobs) await storeBlob(store, key, blob, atMs);
  }
  await store.index.putTag(key, tag, manifest.digest, atMs);
}
