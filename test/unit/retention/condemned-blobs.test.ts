import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CondemnedBlobs } from "../../../src/retention/condemned-blobs.ts";
import {
  IN_MEMORY,
  openSqliteIndex,
} from "../../../src/storage/local/index/open-sqlite-index.ts";
import { trackBlobStore } from "../../../src/storage/tracked-blob-store.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { keyOf } from "../../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { createMemoryBlobStore } from "../../support/memory-blob-store.ts";

const alpine = keyOf("docker.io", "library/alpine");
const app = keyOf("local", "team/app");
const QUOTA = { maxBytes: Infinity, reservedBytes: 0 };

async function setUp(test: AfterTest, names: readonly string[]) {
  const { index } = openSqliteIndex({
    path: IN_MEMORY,
    clock: new FakeClock(),
  });
  const store = createMemoryBlobStore();
  const blobs = trackBlobStore(store);
  releaseAfter(test, async () => {
    await blobs.close();
    await index.close();
  });
  const contents = names.map((name) => Buffer.from(name));
  for (const bytes of contents) {
    const digest = digestOf(bytes);
    await blobs.put(digest, bytes);
    await index.recordBlob(alpine, {
      digest,
      sizeBytes: bytes.length,
      storedAtMs: 1,
    });
    await index.dropRoot(alpine, { kind: "digest", digest });
  }
  const condemned = new CondemnedBlobs({
    index,
    blobs,
    log: { warn: () => undefined },
  });
  const purge = () => condemned.purge(() => false);
  const mount = (bytes: Buffer) =>
    index.mountHostedBlob(app, digestOf(bytes), alpine, 2, QUOTA);
  const isStored = async (bytes: Buffer) =>
    (await blobs.read(digestOf(bytes), bytes.length)) !== undefined;
  return { index, store, blobs, contents, condemned, purge, mount, isStored };
}

void describe("condemned blobs", () => {
  void it("are kept while they are held, and can be mounted then", async (test) => {
    const { blobs, contents, purge, mount, isStored } = await setUp(test, [
      "held",
      "idle",
    ]);
    const [held, idle] = contents;
    assert(held !== undefined && idle !== undefined);
    const release = await blobs.hold(digestOf(held));
    assert.deepEqual(await purge(), { blobs: 1, bytes: 4, isEnd: true });
    assert.equal(await mount(idle), "absent");
    assert.equal(await mount(held), "stored");
    release();
    assert.deepEqual(await purge(), { blobs: 0, bytes: 0, isEnd: true });
    assert.equal(await isStored(held), true);
    assert.equal(await isStored(idle), false);
  });

  void it("can be mounted after their removal failed, and not while it runs", async (test) => {
    const { store, contents, purge, mount, isStored } = await setUp(test, [
      "bytes",
    ]);
    const [bytes] = contents;
    assert(bytes !== undefined);
    const during: string[] = [];
    const remove = store.remove.bind(store);
    store.remove = async () => {
      during.push(await mount(bytes));
      throw new Error("EIO");
    };
    assert.deepEqual(await purge(), { blobs: 0, bytes: 0, isEnd: true });
    assert.deepEqual(during, ["absent"]);
    store.remove = remove;
    assert.equal(await mount(bytes), "stored");
    await purge();
    assert.equal(await isStored(bytes), true);
  });

  void it("are left to another removal that lists them at the same time", async (test) => {
    const { index, contents, purge, isStored } = await setUp(test, ["bytes"]);
    const [bytes] = contents;
    assert(bytes !== undefined);
    const [first, second] = await Promise.all([purge(), purge()]);
    assert.equal(first.blobs + second.blobs, 1);
    assert.equal(await isStored(bytes), false);
    assert.equal(await index.getBlob(digestOf(bytes)), undefined);
  });

  void it("lose their files without a write of the index, unless a hosted repository holds them", async (test) => {
    const { condemned, contents, mount, isStored, index } = await setUp(test, [
      "hosted",
      "mirrored",
    ]);
    const [hosted, mirrored] = contents;
    assert(hosted !== undefined && mirrored !== undefined);
    await mount(hosted);
    await condemned.removeFiles(contents.map((bytes) => digestOf(bytes)));
    assert.equal(await isStored(hosted), true);
    assert.equal(await isStored(mirrored), false);
    await index.close();
    await condemned.removeFiles([digestOf(hosted)]);
    assert.equal(await isStored(hosted), true);
  });
});
