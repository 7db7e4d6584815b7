import assert from "node:assert/strict";
import {
  chmodSync,
  linkSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { Digest } from "../../../../../src/oci/digest.ts";
import type {
  BlobStore,
  PublishedFile,
} from "../../../../../src/storage/blob-store.ts";
import { createFsBlobStore } from "../../../../../src/storage/local/blobs/fs-blob-store.ts";
import {
  type DiskLayout,
  diskLayout,
  layoutFolders,
} from "../../../../../src/storage/local/root/disk-layout.ts";
import { nodeFileSystem } from "../../../../../src/storage/local/root/file-system.ts";
import { trackBlobStore } from "../../../../../src/storage/tracked-blob-store.ts";
import { content } from "../../../../contract/blob-store-contract.ts";
import {
  type AfterTest,
  releaseAfter,
} from "../../../../support/after-test.ts";
import { FaultyFileSystem } from "../../../../support/faulty-file-system.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

const MIB = 1024 * 1024;

interface Scene {
  readonly store: BlobStore;
  readonly layout: DiskLayout;
  readonly faults: FaultyFileSystem;
  readonly foreign: string;
  readonly digest: Digest;
  readonly bytes: Buffer;
}

/** A store, and a file of another program beside it that every user may read. */
async function makeScene(test: AfterTest, sizeBytes = 3 * MIB): Promise<Scene> {
  const folder = await tempDir(test);
  const layout = diskLayout(join(folder, "root"));
  for (const path of layoutFolders(layout)) {
    await nodeFileSystem.makeFolder(path);
  }
  const faults = new FaultyFileSystem();
  const store = createFsBlobStore({ layout, fileSystem: faults.fileSystem });
  releaseAfter(test, () => store.close());
  const foreign = join(folder, "data");
  const { digest, bytes } = content("foreign", sizeBytes);
  writeFileSync(foreign, bytes);
  chmodSync(foreign, 0o644);
  return { store, layout, faults, foreign, digest, bytes };
}

async function publish(
  { store, digest, foreign }: Pick<Scene, "store" | "digest" | "foreign">,
  signal = new AbortController().signal,
): Promise<PublishedFile> {
  assert(store.publishFile !== undefined);
  return store.publishFile(digest, foreign, signal);
}

void describe("a file of another program", () => {
  void it("becomes a blob by a second name, without a copy and with its mode", async (test) => {
    const scene = await makeScene(test);
    const { layout, faults, foreign, digest, bytes } = scene;
    const before = statSync(foreign);
    for (let times = 0; times < 2; times += 1) {
      assert.deepEqual(await publish(scene), {
        kind: "linked",
        sizeBytes: bytes.length,
      });
      const blob = statSync(layout.blobFile(digest));
      assert.equal(blob.ino, before.ino);
      assert.equal(blob.nlink, 2);
      assert.equal(blob.mode, before.mode);
      assert.equal(blob.mtimeMs, before.mtimeMs);
      assert.deepEqual(readdirSync(layout.partialFolder), []);
    }
    assert.equal(faults.countOf("writev"), 0);
  });

  for (const code of ["EXDEV", "EPERM", "EMLINK", "EOPNOTSUPP"]) {
    void it(`is copied if it cannot be linked: ${code}`, async (test) => {
      const scene = await makeScene(test);
      const { layout, faults, foreign, digest, bytes, store } = scene;
      faults.fail("link", code);
      assert.deepEqual(await publish(scene), {
        kind: "copied",
        sizeBytes: bytes.length,
      });
      assert.equal(statSync(layout.blobFile(digest)).mode & 0o777, 0o600);
      assert.equal(statSync(foreign).nlink, 1);
      assert.deepEqual(await store.read(digest, bytes.length), bytes);
      assert.deepEqual(readdirSync(layout.partialFolder), []);
    });
  }

  for (const { isLinkable, steps } of [
    { isLinkable: true, steps: [64 * MIB, MIB] },
    { isLinkable: false, steps: Array.from({ length: 65 }, () => MIB) },
  ]) {
    void it(`reports its bytes while it is ${isLinkable ? "linked" : "copied"}`, async (test) => {
      const { store, faults, foreign, digest } = await makeScene(
        test,
        65 * MIB,
      );
      if (!isLinkable) faults.fail("link", "EXDEV");
      const found: number[] = [];
      const { signal } = new AbortController();
      await store.publishFile?.(digest, foreign, signal, (bytes) =>
        found.push(bytes),
      );
      assert.deepEqual(found, steps);
    });

    void it(`stops between two steps while it is ${isLinkable ? "linked" : "copied"}, with the signal's reason`, async (test) => {
      const scene = await makeScene(test, 65 * MIB);
      const { store, faults, layout, foreign, digest } = scene;
      if (!isLinkable) faults.fail("link", "EXDEV");
      const stop = new AbortController();
      const reason = new Error("stopped");
      await assert.rejects(
        store.publishFile?.(digest, foreign, stop.signal, () =>
          stop.abort(reason),
        ) ?? Promise.resolve(),
        reason,
      );
      assert.deepEqual(readdirSync(layout.blobFolder("sha256")), []);
      assert.equal(
        readdirSync(layout.partialFolder).length,
        isLinkable ? 0 : 1,
      );
    });
  }

  void it("is not copied again from its start after an interruption", async (test) => {
    const scene = await makeScene(test);
    const { layout, faults, digest, bytes } = scene;
    faults.failFrom("link", "EXDEV");
    const stop = new AbortController();
    const { fileSystem } = faults;
    const writev = fileSystem.writev.bind(fileSystem);
    fileSystem.writev = async (...input) => {
      const length = await writev(...input);
      stop.abort(new Error("stopped"));
      return length;
    };
    await assert.rejects(publish(scene, stop.signal), /stopped/);
    fileSystem.writev = writev;
    const [partial = ""] = readdirSync(layout.partialFolder);
    assert.equal(statSync(join(layout.partialFolder, partial)).size, MIB);
    const writes = faults.countOf("writev");
    assert.equal((await publish(scene)).kind, "copied");
    assert.equal(faults.countOf("writev") - writes, 2);
    assert.deepEqual(readFileSync(layout.blobFile(digest)), bytes);
  });

  void it("is reported if the disk does not return its bytes, linked or copied", async (test) => {
    for (const isLinkable of [true, false]) {
      const scene = await makeScene(test, 5_000);
      const { layout, faults } = scene;
      if (!isLinkable) faults.fail("link", "EXDEV");
      faults.fail("read", "EIO");
      assert.deepEqual(await publish(scene), {
        kind: "unreadable",
        code: "EIO",
      });
      if (!isLinkable) faults.fail("link", "EXDEV");
      faults.fail("open", "EACCES");
      assert.deepEqual(await publish(scene), {
        kind: "unreadable",
        code: "EACCES",
      });
      assert.deepEqual(readdirSync(layout.blobFolder("sha256")), []);
      assert.deepEqual(readdirSync(layout.partialFolder), []);
      assert.equal(faults.openFiles, 0);
    }
  });

  void it("leaves nothing when the store's own disk fails", async (test) => {
    for (const call of ["link", "fdatasync", "rename", "fsync"] as const) {
      const scene = await makeScene(test, 5_000);
      const { layout, faults, foreign, bytes } = scene;
      faults.fail(call, "EIO");
      await assert.rejects(publish(scene), { name: "StorageError" }, call);
      assert.deepEqual(readdirSync(layout.blobFolder("sha256")), []);
      assert.deepEqual(readdirSync(layout.partialFolder), []);
      assert.deepEqual(readFileSync(foreign), bytes);
      assert.equal(faults.openFiles, 0);
    }
    const scene = await makeScene(test);
    scene.faults.fail("link", "EXDEV");
    scene.faults.fail("writev", "ENOSPC", 2);
    await assert.rejects(publish(scene), { code: "ENOSPC" });
    assert.deepEqual(readdirSync(scene.layout.partialFolder), []);
  });

  void it("is linked into folders that another program removed", async (test) => {
    const scene = await makeScene(test, 5_000);
    await nodeFileSystem.removeTree(scene.layout.partialFolder);
    await nodeFileSystem.removeTree(scene.layout.blobFolder("sha256"));
    assert.equal((await publish(scene)).kind, "linked");
  });

  void it("is never written to by a fill that adopts its second name", async (test) => {
    const scene = await makeScene(test);
    const { store, layout, foreign, digest, bytes } = scene;
    await publish(scene);
    // The other program shortened its file, and with it the blob.
    truncateSync(foreign, MIB);
    const writer = await store.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: bytes.length,
    });
    assert.equal(writer.writtenBytes, 0);
    await writer.append([bytes]);
    await writer.commit(digest);
    assert.equal(statSync(foreign).size, MIB);
    assert.equal(statSync(layout.blobFile(digest)).nlink, 1);
    assert.deepEqual(readFileSync(layout.blobFile(digest)), bytes);
  });

  void it("is not truncated by a fill whose partial is a second name of it", async (test) => {
    const { store, layout, foreign, digest, bytes } = await makeScene(test);
    linkSync(foreign, layout.partialFile(digest));
    const writer = await store.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: 10,
    });
    await writer.append([Buffer.from("other")]);
    await writer.suspend();
    assert.deepEqual(readFileSync(foreign), bytes);
  });

  void it("waits until a removal of the digest has ended, and counts as published", async (test) => {
    const scene = await makeScene(test, 5_000);
    let published = 0;
    const tracked = trackBlobStore(scene.store, () => {
      published += 1;
    });
    const claim = tracked.claim([scene.digest]);
    const publishing = publish({ ...scene, store: tracked });
    await tracked.remove(scene.digest);
    assert.equal(tracked.isBusy(scene.digest), false);
    claim.release();
    assert.equal((await publishing).kind, "linked");
    assert.equal(published, 1);
    const other = content("another", 10);
    await publish({ ...scene, store: tracked, digest: other.digest });
    assert.equal(published, 1);
  });
});
