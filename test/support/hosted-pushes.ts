import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { parsePushedManifest } from "../../src/oci/pushed-manifest.ts";
import type { RepositoryKey } from "../../src/oci/reference.ts";
import { parseUploadId } from "../../src/storage/blob-store.ts";
import type { HostedManifestOutcome } from "../../src/storage/hosted-index.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { tag } from "../contract/metadata-index-contract.ts";
import { UNLIMITED } from "./hosted-store.ts";
import type { TestBlob, TestImage, TestManifest } from "./image-builder.ts";

type Store = Pick<Storage, "blobs" | "index">;

/** Uploads a blob through a session, as the service of uploads does. */
export async function uploadBlob(
  { blobs, index }: Store,
  key: RepositoryKey,
  blob: TestBlob,
): Promise<void> {
  const { digest, sizeBytes } = blob;
  const id = parseUploadId(randomUUID());
  assert(id !== undefined);
  await index.putUpload({
    id,
    key,
    algorithm: "sha256",
    startedAtMs: Date.now(),
    touchedAtMs: Date.now(),
  });
  const writer = await blobs.beginWrite({
    kind: "upload",
    id,
    algorithm: "sha256",
  });
  if (sizeBytes > 0) await writer.append([blob.bytes()]);
  assert.equal(await writer.hash.digest(), digest);
  const release = await blobs.hold(digest);
  try {
    await index.beginHostedWrite(key, { digest, sizeBytes });
    await writer.commit(digest);
    const outcome = await index.recordHostedBlob(
      key,
      { digest, sizeBytes, storedAtMs: Date.now() },
      UNLIMITED.quota,
    );
    assert.equal(outcome, "stored");
  } finally {
    release();
  }
  await index.dropUpload(id);
}

/** Puts a manifest with tags, as the service of manifests does. */
export async function putManifest(
  { blobs, index }: Store,
  key: RepositoryKey,
  {
    bytes,
    digest,
    mediaType,
  }: Pick<TestManifest, "bytes" | "digest" | "mediaType">,
  tags: readonly string[] = [],
): Promise<HostedManifestOutcome> {
  const parsed = parsePushedManifest(bytes, mediaType);
  assert(parsed.ok);
  const { children, subject, artifactType, annotations } = parsed;
  const sizeBytes = bytes.length;
  const release = await blobs.hold(digest);
  try {
    await index.beginHostedWrite(key, { digest, sizeBytes, mediaType });
    await blobs.put(digest, bytes);
    return await index.putHostedManifest(
      key,
      {
        digest,
        sizeBytes,
        storedAtMs: Date.now(),
        mediaType,
        children,
        subject,
        artifactType,
        annotations,
      },
      tags.map(tag),
      UNLIMITED,
    );
  } finally {
    release();
  }
}

/** Pushes an image: blobs that the repository does not have, then the manifest. */
export async function pushImage(
  store: Store,
  key: RepositoryKey,
  image: TestImage,
  tags: readonly string[] = [],
): Promise<void> {
  for (const blob of image.blobs) {
    const has = await store.index.claimHostedBlob(key, blob.digest, Date.now());
    if (has === undefined) await uploadBlob(store, key, blob);
  }
  const outcome = await putManifest(store, key, image.manifest, tags);
  assert.equal(outcome.kind, "stored");
}
