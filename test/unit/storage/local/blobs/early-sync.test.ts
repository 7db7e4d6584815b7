import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { describe, it } from "node:test";
import { digestOf } from "../../../../../src/oci/digest.ts";
import type { UploadId } from "../../../../../src/storage/blob-store.ts";
import { EarlySync } from "../../../../../src/storage/local/blobs/early-sync.ts";
import { createFsBlobStore } from "../../../../../src/storage/local/blobs/fs-blob-store.ts";
import {
  diskLayout,
  layoutFolders,
} from "../../../../../src/storage/local/root/disk-layout.ts";
import { nodeFileSystem } from "../../../../../src/storage/local/root/file-system.ts";
import {
  type AfterTest,
  releaseAfter,
} from "../../../../support/after-test.ts";
import { FaultyFileSystem } from "../../../../support/faulty-file-system.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

const MIB = 1024 * 1024;
/** More than one step. */
const BYTES = Buffer.alloc(40 * MIB, "early");
const DIGEST = digestOf(BYTES);

const UPLOAD = {
  kind: "upload",
  id: "upload-of-some-mib" as UploadId,
  algorithm: "sha256",
} as const;

async function makeStore(test: AfterTest) {
  const layout = diskLayout(await tempDir(test));
  for (const folder of layoutFolders(layout)) {
    await nodeFileSystem.makeFolder(folder);
  }
  const faults = new FaultyFileSystem();
  const store = createFsBlobStore({ layout, fileSystem: faults.fileSystem });
  releaseAfter(test, () => store.close());
  return { store, layout, faults };
}

void describe("the sync of a file that grows", () => {
  void it("starts with every 32 MiB, one at a time", async () => {
    const started: PromiseWithResolvers<void>[] = [];
    const fdatasync = async (): Promise<void> => {
      const one = Promise.withResolvers<void>();
      started.push(one);
      return one.promise;
    };
    const sync = new EarlySync({ fdatasync }, 3, 10 * MIB);
    sync.grewTo(41 * MIB);
    assert.equal(started.length, 0);
    sync.grewTo(42 * MIB);
    assert.equal(started.length, 1);
    sync.grewTo(900 * MIB);
    assert.equal(started.length, 1);
    started[0]?.resolve();
    await sync.check();
    sync.grewTo(901 * MIB);
    assert.equal(started.length, 2);
    started[1]?.reject(new Error("EIO"));
    await assert.rejects(sync.check(), /EIO/);
    assert.equal(sync.hasFailed, true);
    sync.grewTo(2_000 * MIB);
    assert.equal(started.length, 2);
    await sync.settled();
  });

  void it("happens to an upload, not to a fill, whose client does not wait for the disk", async (test) => {
    const { store, faults } = await makeStore(test);
    const fill = await store.beginWrite({ kind: "fill", digest: DIGEST });
    await fill.append([BYTES]);
    await fill.abort();
    assert.equal(faults.countOf("fdatasync"), 0);
    const upload = await store.beginWrite(UPLOAD);
    await upload.append([BYTES]);
    await upload.commit(DIGEST);
    assert.equal(faults.countOf("fdatasync"), 2);
    assert.equal(faults.openFiles, 0);
  });

  void it("fails the commit if it failed, without a second try, and leaves nothing", async (test) => {
    const { store, layout, faults } = await makeStore(test);
    const upload = await store.beginWrite(UPLOAD);
    faults.fail("fdatasync", "EIO");
    await upload.append([BYTES]);
    await assert.rejects(upload.commit(DIGEST), { code: "EIO" });
    assert.equal(faults.countOf("fdatasync"), 1);
    assert.deepEqual(readdirSync(layout.partialFolder), []);
    assert.deepEqual(readdirSync(layout.blobFolder("sha256")), []);
  });

  void it("drops a suspended upload if it failed: a later sync would not report the loss again", async (test) => {
    const { store, layout, faults } = await makeStore(test);
    const upload = await store.beginWrite(UPLOAD);
    faults.fail("fdatasync", "EIO");
    await upload.append([BYTES]);
    await upload.suspend();
    assert.deepEqual(readdirSync(layout.partialFolder), []);
    assert.equal(await store.readUploadSize(UPLOAD.id), 0);
  });

  void it("ends before the file of an aborted upload is closed", async (test) => {
    const { store, layout, faults } = await makeStore(test);
    const upload = await store.beginWrite(UPLOAD);
    await upload.append([BYTES]);
    await upload.abort();
    assert.equal(faults.countOf("fdatasync"), 1);
    assert.deepEqual(readdirSync(layout.partialFolder), []);
  });
});
