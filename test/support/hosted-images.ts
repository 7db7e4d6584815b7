import assert from "node:assert/strict";
import { parseManifest } from "../../src/oci/manifest.ts";
import type { RepositoryKey, Tag } from "../../src/oci/reference.ts";
import type { BlobStore } from "../../src/storage/blob-store.ts";
import type {
  HostedBlobs,
  HostedManifests,
} from "../../src/storage/hosted-index.ts";
import { openLocalStorage } from "../../src/storage/local/open-local-storage.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import type {
  TestBlob,
  TestImage,
  TestIndex,
  TestManifest,
} from "./image-builder.ts";
import type { TestMirror } from "./mirror-harness.ts";

/** Where images are pushed: an opened storage. */
export interface HostedStore {
  readonly blobs: Pick<BlobStore, "put">;
  readonly index: Pick<HostedBlobs, "recordHostedBlob"> &
    Pick<HostedManifests, "putHostedManifest">;
}

const ignore = (): void => undefined;

const UNLIMITED = { maxBytes: Infinity, reservedBytes: 0 };

/** Stores a blob as an upload does. */
export async function pushBlob(
  { blobs, index }: HostedStore,
  key: RepositoryKey,
  blob: TestBlob,
  atMs = 1,
): Promise<void> {
  const { digest, sizeBytes } = blob;
  await blobs.put(digest, blob.bytes());
  assert.equal(
    await index.recordHostedBlob(
      key,
      { digest, sizeBytes, storedAtMs: atMs },
      UNLIMITED,
    ),
    "stored",
  );
}

/** Stores a manifest as a push does. */
export async function pushManifest(
  { blobs, index }: HostedStore,
  key: RepositoryKey,
  manifest: TestManifest,
  tags: readonly Tag[],
  atMs = 1,
): Promise<void> {
  const { bytes, digest, mediaType, artifactType, annotations } = manifest;
  const parsed = parseManifest(bytes, mediaType);
  assert(parsed.ok);
  const { children, subject } = parsed;
  await blobs.put(digest, bytes);
  const outcome = await index.putHostedManifest(
    key,
    {
      digest,
      sizeBytes: bytes.length,
      storedAtMs: atMs,
      mediaType: parsed.mediaType,
      children,
      subject,
      artifactType,
      annotations,
    },
    tags,
    { quota: UNLIMITED, isImmutable: () => false },
  );
  assert.equal(outcome.kind, "stored");
}

/** Pushes a whole image; without a tag by its digest. */
export async function pushImage(
  store: HostedStore,
  key: RepositoryKey,
  image: TestImage,
  tags: readonly Tag[],
  atMs = 1,
): Promise<void> {
  for (const blob of image.blobs) await pushBlob(store, key, blob, atMs);
  await pushManifest(store, key, image.manifest, tags, atMs);
}

/** Pushes an index with all its images. */
export async function pushIndex(
  store: HostedStore,
  key: RepositoryKey,
  { manifest, images }: TestIndex,
  tags: readonly Tag[],
  atMs = 1,
): Promise<void> {
  for (const image of images) await pushImage(store, key, image, [], atMs);
  await pushManifest(store, key, manifest, tags, atMs);
}

/** Stores hosted content in the storage of a mirror, which is stopped meanwhile. */
export async function pushWhileStopped(
  mirror: Pick<TestMirror, "root" | "open" | "close">,
  push: (store: HostedStore) => Promise<void>,
): Promise<void> {
  await mirror.close();
  const storage = await openLocalStorage({
    root: mirror.root,
    clock: systemClock,
    log: { info: ignore, warn: ignore, error: ignore },
  });
  await storage.upkeep.recovered();
  await push(storage);
  await storage.close();
  await mirror.open();
}
