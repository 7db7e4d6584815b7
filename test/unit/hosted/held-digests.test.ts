import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { ManifestWrites } from "../../../src/hosted/content/manifest-writes.ts";
import { Uploads } from "../../../src/hosted/uploads/uploads.ts";
import { HotManifests } from "../../../src/storage/hot-manifests.ts";
import { tag } from "../../contract/metadata-index-contract.ts";
import { releaseAfter } from "../../support/after-test.ts";
import { HostedStore, UNLIMITED } from "../../support/hosted-store.ts";
import { buildImage, type TestBlob } from "../../support/image-builder.ts";
import {
  hostedRepository,
  ScriptedBody,
  uploadRequest,
} from "../../support/upload-scene.ts";

const APP = hostedRepository("team/app");
const IMAGE = buildImage({ seed: "held digests", layers: [1_000] });

/** Services that push to a storage on disk. */
async function setUp(test: TestContext) {
  const store = await HostedStore.open(test);
  const { blobs, index, clock, log, metrics } = store;
  const uploads = new Uploads({
    blobs,
    index,
    clock,
    log,
    metrics,
    maxOpen: () => 10,
    expiryMs: () => Infinity,
    onEvent: () => undefined,
    schedule: store.schedule.start,
  });
  releaseAfter(test, () => uploads.stop());
  const manifests = new ManifestWrites({
    store: blobs,
    index,
    hot: new HotManifests(),
    clock,
    reservedBytes: () => 0,
  });
  const upload = (blob: TestBlob) =>
    uploads.begin(uploadRequest(APP, ScriptedBody.of(blob.bytes())), {
      digest: blob.digest,
      mount: undefined,
      algorithm: "sha256",
    });
  const { bytes, mediaType } = IMAGE.manifest;
  const putManifest = () =>
    manifests.put(APP, {
      bytes,
      contentType: mediaType,
      reference: { kind: "tag", tag: tag("v1") },
      tags: [],
    });
  return { store, index, upload, putManifest };
}

void describe("a purge between the bytes and the row of a push", () => {
  void it("keeps the bytes of a blob that was deleted before", async (test) => {
    const { store, index, upload } = await setUp(test);
    const [blob] = IMAGE.blobs;
    assert(blob !== undefined);
    const { digest } = blob;
    await upload(blob);
    await index.unlinkHostedBlob(APP.key, digest, UNLIMITED.isImmutable);
    const record = index.recordHostedBlob.bind(index);
    test.mock.method(
      index,
      "recordHostedBlob",
      async (...input: Parameters<typeof record>) => {
        await store.purge();
        return record(...input);
      },
    );
    await upload(blob);
    assert.notEqual(await index.getLinkedBlob(APP.key, digest), undefined);
    assert.equal(store.has(digest), true);
  });

  void it("keeps the bytes of a manifest that was deleted before", async (test) => {
    const { store, index, upload, putManifest } = await setUp(test);
    for (const blob of IMAGE.blobs) await upload(blob);
    const { digest } = await putManifest();
    await store.remove(APP.key, digest);
    const put = index.putHostedManifest.bind(index);
    test.mock.method(
      index,
      "putHostedManifest",
      async (...input: Parameters<typeof put>) => {
        await store.purge();
        return put(...input);
      },
    );
    await putManifest();
    assert.equal((await index.getTag(APP.key, tag("v1")))?.digest, digest);
    assert.equal(store.has(digest), true);
  });
});
