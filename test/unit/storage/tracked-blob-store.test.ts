import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  diskLayout,
  layoutFolders,
} from "../../../src/storage/local/root/disk-layout.ts";
import { nodeFileSystem } from "../../../src/storage/local/root/file-system.ts";
import { createFsBlobStore } from "../../../src/storage/local/blobs/fs-blob-store.ts";
import {
  type TrackedBlobStore,
  trackBlobStore,
} from "../../../src/storage/tracked-blob-store.ts";
import { parseUploadId } from "../../../src/storage/blob-store.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { tempDir } from "../../support/temp-dir.ts";

const bytes = Buffer.from("some bytes");
const digest = digestOf(bytes);

async function open(
  test: AfterTest,
  isRecorded?: () => Promise<boolean>,
): Promise<{
  store: TrackedBlobStore;
  published: () => number;
}> {
  const layout = diskLayout(join(await tempDir(test), "data"));
  for (const folder of layoutFolders(layout)) {
    await nodeFileSystem.makeFolder(folder);
  }
  let published = 0;
  const store = trackBlobStore(
    createFsBlobStore({ layout }),
    () => {
      published++;
    },
    isRecorded,
  );
  releaseAfter(test, () => store.close());
  return { store, published: () => published };
}

void describe("a tracked store", () => {
  void it("reports a blob as busy until every reader is closed", async (test) => {
    const { store, published } = await open(test);
    assert.equal(store.isBusy(digest), false);
    await store.put(digest, bytes);
    assert.equal(published(), 1);
    const readers = [
      await store.open(digest, bytes.length),
      await store.open(digest, bytes.length),
    ];
    for (const reader of readers) {
      assert.equal(store.isBusy(digest), true);
      assert.deepEqual(store.claim([digest]).keys, []);
      await reader?.close();
      await reader?.close();
    }
    assert.equal(store.isBusy(digest), false);
    assert.equal(await store.open(digest, 3), undefined);
    assert.equal(store.isBusy(digest), false);
  });

  void it("reports a blob as busy until its writer has ended and its readers are closed", async (test) => {
    const { store, published } = await open(test);
    for (const end of ["suspend", "abort", "commit"] as const) {
      const writer = await store.beginWrite({
        kind: "fill",
        digest,
        expectedBytes: bytes.length,
      });
      assert.equal(store.isBusy(digest), true);
      if (writer.writtenBytes === 0) await writer.append([bytes]);
      const reader = await writer.openReader();
      await writer[end](digest);
      assert.equal(store.isBusy(digest), true);
      await reader.close();
      assert.equal(store.isBusy(digest), false, end);
    }
    assert.equal(published(), 1);
  });

  void it("hides claimed blobs from readers, and makes writers wait for the release", async (test) => {
    const { store } = await open(test);
    await store.put(digest, bytes);
    const claim = store.claim([digest]);
    assert.deepEqual(claim.keys, [digest]);
    assert.deepEqual(store.claim([digest]).keys, []);
    assert.equal(await store.open(digest, bytes.length), undefined);
    assert.equal(await store.read(digest, bytes.length), undefined);
    const order: string[] = [];
    const writing = store.put(digest, bytes).then(() => order.push("written"));
    const filling = store
      .beginWrite({ kind: "fill", digest, expectedBytes: bytes.length })
      .then(async (writer) => {
        order.push("opened");
        await writer.abort();
      });
    await store.remove(digest);
    order.push("removed");
    claim.release();
    claim.release();
    await Promise.all([writing, filling]);
    assert.equal(order[0], "removed");
    assert.equal(order.length, 3);
    assert.equal(store.isBusy(digest), false);
  });

  void it("tracks an upload by its id, and makes its commit wait for a claim of the digest", async (test) => {
    const { store, published } = await open(test);
    const id = parseUploadId("an-upload-that-waits");
    assert(id !== undefined);
    const writer = await store.beginWrite({
      kind: "upload",
      id,
      algorithm: "sha256",
    });
    await writer.append([bytes]);
    assert.equal(store.isBusy(id), true);
    assert.equal(store.isBusy(digest), false);
    assert.deepEqual(store.claim([id]).keys, []);
    const claim = store.claim([digest]);
    assert.deepEqual(claim.keys, [digest]);
    const order: string[] = [];
    const committing = writer
      .commit(digest)
      .then(() => order.push("committed"));
    await store.remove(digest);
    order.push("removed");
    claim.release();
    await committing;
    assert.deepEqual(order, ["removed", "committed"]);
    assert.equal(published(), 1);
    assert.equal(store.isBusy(id), false);
    assert.equal(store.isBusy(digest), false);
    assert.deepEqual(await store.read(digest, bytes.length), bytes);
  });

  void it("keeps a held digest from being claimed until its last release, while it is read and written", async (test) => {
    const { store } = await open(test);
    const releases = [await store.hold(digest), await store.hold(digest)];
    await store.put(digest, bytes);
    assert.deepEqual(await store.read(digest, bytes.length), bytes);
    const other = digestOf(Buffer.from("other bytes"));
    for (const release of releases) {
      assert.equal(store.isBusy(digest), true);
      const claim = store.claim([digest, other]);
      assert.deepEqual(claim.keys, [other]);
      claim.release();
      release();
      release();
    }
    assert.equal(store.isBusy(digest), false);
    assert.deepEqual(store.claim([digest]).keys, [digest]);
  });

  void it("holds a claimed digest only after its removal", async (test) => {
    const { store } = await open(test);
    await store.put(digest, bytes);
    const claim = store.claim([digest]);
    const order: string[] = [];
    const holding = store.hold(digest).then((release) => {
      order.push("held");
      return release;
    });
    await store.remove(digest);
    order.push("removed");
    claim.release();
    const release = await holding;
    assert.deepEqual(order, ["removed", "held"]);
    await store.put(digest, bytes);
    assert.deepEqual(store.claim([digest]).keys, []);
    release();
    assert.deepEqual(store.claim([digest]).keys, [digest]);
  });

  void it("continues a published file without a row only while no other caller uses the digest", async (test) => {
    const isRecorded = { now: false };
    const { store } = await open(test, () => Promise.resolve(isRecorded.now));
    const target = {
      kind: "fill",
      digest,
      expectedBytes: bytes.length,
      source: { upstream: "a.test", mayAdopt: true },
    } as const;
    await store.put(digest, bytes);
    const release = await store.hold(digest);
    const beside = await store.beginWrite(target);
    assert.equal(beside.writtenBytes, 0);
    await beside.abort();
    assert.deepEqual(await store.read(digest, bytes.length), bytes);
    release();
    isRecorded.now = true;
    const afterwards = await store.beginWrite(target);
    assert.equal(afterwards.writtenBytes, 0);
    await afterwards.abort();
    assert.deepEqual(await store.read(digest, bytes.length), bytes);
    isRecorded.now = false;
    const adopting = await store.beginWrite(target);
    assert.equal(adopting.writtenBytes, bytes.length);
    assert.equal(await store.read(digest, bytes.length), undefined);
    await adopting.commit(digest);
    assert.deepEqual(await store.read(digest, bytes.length), bytes);
    assert.equal(store.isBusy(digest), false);
  });

  void it("lets a push wait while a fill continues a published file", async (test) => {
    const asked = Promise.withResolvers<boolean>();
    const { store } = await open(test, () => asked.promise);
    const filling = store.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: bytes.length,
      source: { upstream: "a.test", mayAdopt: true },
    });
    const order: string[] = [];
    const pushing = store.put(digest, bytes).then(() => order.push("pushed"));
    const opened = filling.then((writer) => {
      order.push("opened");
      return writer;
    });
    asked.resolve(false);
    const writer = await opened;
    await pushing;
    assert.deepEqual(order, ["opened", "pushed"]);
    await writer.abort();
    assert.deepEqual(await store.read(digest, bytes.length), bytes);
  });
});
