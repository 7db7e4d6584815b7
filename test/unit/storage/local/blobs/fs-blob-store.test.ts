import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { describe, it } from "node:test";
import { createBackgroundHashes } from "../../../../../src/storage/local/blobs/background-hash.ts";
import type { BlobStore } from "../../../../../src/storage/blob-store.ts";
import {
  type DiskLayout,
  diskLayout,
  layoutFolders,
} from "../../../../../src/storage/local/root/disk-layout.ts";
import { nodeFileSystem } from "../../../../../src/storage/local/root/file-system.ts";
import { createFsBlobStore } from "../../../../../src/storage/local/blobs/fs-blob-store.ts";
import { digestOf } from "../../../../../src/oci/digest.ts";
import { content, readAll } from "../../../../contract/blob-store-contract.ts";
import {
  type AfterTest,
  releaseAfter,
} from "../../../../support/after-test.ts";
import { FaultyFileSystem } from "../../../../support/faulty-file-system.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

const MIB = 1024 * 1024;

interface Storage {
  readonly store: BlobStore;
  readonly layout: DiskLayout;
  readonly faults: FaultyFileSystem;
}

async function makeStorage(test: AfterTest): Promise<Storage> {
  const layout = diskLayout(await tempDir(test));
  for (const folder of layoutFolders(layout)) {
    await nodeFileSystem.makeFolder(folder);
  }
  const faults = new FaultyFileSystem();
  const store = createFsBlobStore({ layout, fileSystem: faults.fileSystem });
  releaseAfter(test, () => store.close());
  return { store, layout, faults };
}

void describe("the blob store of files", () => {
  void it("publishes a file under its digest with mode 0600", async (test) => {
    const { store, layout } = await makeStorage(test);
    const { digest, bytes } = content("mode", 10);
    await store.put(digest, bytes);
    const hex = digest.slice("sha256:".length);
    assert.deepEqual(readdirSync(layout.blobFolder("sha256")), [hex]);
    assert.equal(statSync(layout.blobFile(digest)).mode & 0o777, 0o600);
    assert.equal(statSync(layout.blobFolder("sha256")).mode & 0o777, 0o700);
    assert.deepEqual(readdirSync(layout.partialFolder), []);
  });

  void it("treats a folder, a link or a pipe at a blob's path as absent", async (test) => {
    const { store, layout, faults } = await makeStorage(test);
    const { digest, bytes } = content("place", 10);
    const path = layout.blobFile(digest);
    const target = `${layout.root}/target`;
    writeFileSync(target, bytes);
    for (const replace of [
      () => mkdirSync(path),
      () => symlinkSync(target, path),
      () => execFileSync("mkfifo", [path]),
    ]) {
      replace();
      const { size } = statSync(path);
      assert.equal(await store.open(digest, size), undefined);
      // The next commit replaces it.
      const partial = await store.beginWrite({
        kind: "fill",
        digest,
        expectedBytes: bytes.length,
      });
      assert.equal(partial.writtenBytes, 0);
      await partial.append([bytes]);
      await partial.commit(digest);
      assert.deepEqual(await store.read(digest, bytes.length), bytes);
      await store.remove(digest);
      replace();
      await store.put(digest, bytes);
      assert.deepEqual(await store.read(digest, bytes.length), bytes);
      await store.remove(digest);
      replace();
      await store.remove(digest);
    }
    assert.equal(faults.openFiles, 0);
  });

  for (const code of ["EMFILE", "EIO", "EACCES"]) {
    void it(`does not report a blob as absent if its open fails with ${code}`, async (test) => {
      const { store, faults } = await makeStorage(test);
      const { digest, bytes } = content("busy", 10);
      await store.put(digest, bytes);
      faults.fail("open", code);
      await assert.rejects(store.open(digest, bytes.length), {
        name: "StorageError",
        code,
      });
      faults.fail("stat", code);
      await assert.rejects(store.open(digest, bytes.length), {
        name: "StorageError",
        code,
      });
      assert.deepEqual(await store.read(digest, bytes.length), bytes);
      assert.equal(faults.openFiles, 0);
    });
  }

  void it("fails a read if the file was truncated by another process", async (test) => {
    const { store, layout, faults } = await makeStorage(test);
    const { digest, bytes } = content("cut", 5_000);
    await store.put(digest, bytes);
    const reader = await store.open(digest, bytes.length);
    assert(reader !== undefined);
    truncateSync(layout.blobFile(digest), 3_000);
    const target = Buffer.alloc(2_000);
    assert.equal(await reader.read(target, 0), 2_000);
    await assert.rejects(reader.read(target, 2_000), {
      name: "StorageError",
      code: "EOF",
    });
    await reader.close();
    await assert.rejects(reader.read(target, 0), { code: "EBADF" });
    assert.equal(await store.open(digest, bytes.length), undefined);
    assert.equal(faults.openFiles, 0);
  });

  void it("continues a published file that was truncated", async (test) => {
    const { store, layout } = await makeStorage(test);
    const { digest, bytes } = content("cut", 5_000);
    await store.put(digest, bytes);
    truncateSync(layout.blobFile(digest), 3_000);
    const partial = await store.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: bytes.length,
    });
    assert.equal(partial.writtenBytes, 3_000);
    await partial.append([bytes.subarray(3_000)]);
    assert.equal(await partial.hash.digest(), digest);
    await partial.commit(digest);
    assert.deepEqual(await store.read(digest, bytes.length), bytes);
  });

  void it("needs one descriptor for a writer with its hash and all its readers", async (test) => {
    const { store, faults } = await makeStorage(test);
    const { digest, bytes } = content("readers", 2 * MIB);
    const partial = await store.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: bytes.length,
    });
    const readers = await Promise.all(
      Array.from({ length: 300 }, () => partial.openReader()),
    );
    await partial.append([bytes]);
    assert.equal(faults.openFiles, 1);
    assert.equal(await partial.hash.digest(), digest);
    await partial.commit(digest);
    for (const reader of readers) {
      assert.equal(faults.openFiles, 1);
      const target = Buffer.alloc(10);
      assert.equal(await reader.read(target, MIB), 10);
      assert.deepEqual(target, bytes.subarray(MIB, MIB + 10));
      await reader.close();
      await reader.close();
    }
    await store.close();
    assert.equal(faults.openFiles, 0);
  });

  for (const expected of [300_000, undefined]) {
    void it(`keeps the bytes stored before the disk was full, ${expected ?? "unknown"} expected`, async (test) => {
      const { store, layout, faults } = await makeStorage(test);
      const { digest, bytes } = content("full", 300_000);
      const partial = await store.beginWrite({
        kind: "fill",
        digest,
        expectedBytes: expected,
      });
      const reader = await partial.openReader();
      await partial.append([bytes.subarray(0, 100_000)]);
      faults.maxWriteBytes = 50_000;
      faults.fail("writev", "ENOSPC", 2);
      await assert.rejects(
        partial.append([
          bytes.subarray(100_000, 120_000),
          bytes.subarray(120_000),
        ]),
        { name: "StorageError", operation: "write", code: "ENOSPC" },
      );
      assert.equal(partial.writtenBytes, 120_000);
      assert.equal(
        await partial.hash.digest(),
        digestOf(bytes.subarray(0, 120_000)),
      );
      partial.hash.update(bytes.subarray(120_000));
      assert.equal(await partial.hash.digest(), digest);
      await partial.abort();
      assert.deepEqual(
        await readAll(reader),
        Buffer.from(bytes.subarray(0, 120_000)),
      );
      assert.deepEqual(readdirSync(layout.partialFolder), []);
      await store.close();
      assert.equal(faults.openFiles, 0);
    });
  }

  void it("continues when there is room again, also in short writes", async (test) => {
    const { store, faults } = await makeStorage(test);
    const { digest, bytes } = content("room", 100_000);
    const partial = await store.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: bytes.length,
    });
    faults.maxWriteBytes = 7_001;
    faults.fail("writev", "ENOSPC", 4);
    await assert.rejects(partial.append([bytes]), { code: "ENOSPC" });
    assert.equal(partial.writtenBytes, 3 * 7_001);
    await partial.append([
      bytes.subarray(3 * 7_001, 50_000),
      Buffer.alloc(0),
      bytes.subarray(50_000),
    ]);
    assert.equal(await partial.hash.digest(), digest);
    await partial.commit(digest);
    assert.deepEqual(await store.read(digest, bytes.length), bytes);
  });

  void it("writes at most 4 MiB and 512 chunks in one call", async (test) => {
    const { store, faults } = await makeStorage(test);
    const { digest, bytes } = content("large", 9 * MIB);
    const partial = await store.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: bytes.length,
    });
    await partial.append([bytes]);
    assert.equal(faults.countOf("writev"), 3);
    await partial.abort();
    const many = await store.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: bytes.length,
    });
    await many.append(
      Array.from({ length: 1_025 }, (_, i) => bytes.subarray(i, i + 1)),
    );
    assert.equal(faults.countOf("writev"), 6);
    assert.equal(await many.hash.digest(), digestOf(bytes.subarray(0, 1_025)));
    await many.abort();
  });

  for (const { call, code } of [
    { call: "fdatasync", code: "EIO" },
    { call: "rename", code: "EXDEV" },
    { call: "fsync", code: "EIO" },
  ] as const) {
    void it(`removes a partial if ${call} fails in a commit, without a retry`, async (test) => {
      const { store, layout, faults } = await makeStorage(test);
      const { digest, bytes } = content("sync", 1_000);
      const partial = await store.beginWrite({
        kind: "fill",
        digest,
        expectedBytes: bytes.length,
      });
      await partial.append([bytes]);
      const reader = await partial.openReader();
      const before = faults.countOf(call);
      faults.fail(call, code);
      await assert.rejects(partial.commit(digest), {
        name: "StorageError",
        code,
      });
      assert.equal(faults.countOf(call), before + 1);
      assert.deepEqual(readdirSync(layout.partialFolder), []);
      assert.deepEqual(readdirSync(layout.blobFolder("sha256")), []);
      assert.deepEqual(await readAll(reader), bytes);
      assert.equal(faults.openFiles, 0);
    });

    void it(`leaves no file of a small blob if ${call} fails`, async (test) => {
      const { store, layout, faults } = await makeStorage(test);
      const { digest, bytes } = content("small", 1_000);
      faults.fail(call, code);
      await assert.rejects(store.put(digest, bytes), { code });
      assert.deepEqual(readdirSync(layout.partialFolder), []);
      assert.deepEqual(readdirSync(layout.blobFolder("sha256")), []);
      assert.equal(faults.openFiles, 0);
      await store.put(digest, bytes);
    });
  }

  void it("truncates a partial to its stored bytes if it is suspended after a failed write", async (test) => {
    const { store, layout, faults } = await makeStorage(test);
    const { digest, bytes } = content("torn", 10_000);
    const partial = await store.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: bytes.length,
    });
    await partial.append([bytes.subarray(0, 4_000)]);
    faults.fail("writev", "EIO");
    await assert.rejects(partial.append([bytes.subarray(4_000)]));
    // Bytes that a failing disk may have stored of the write that it reported as failed.
    truncateSync(layout.partialFile(digest), 6_000);
    await partial.suspend();
    assert.equal(statSync(layout.partialFile(digest)).size, 4_000);
  });

  void it("keeps no file for a writer that is suspended empty", async (test) => {
    const { store, layout, faults } = await makeStorage(test);
    const { digest } = content("empty", 10);
    const partial = await store.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: 10,
    });
    await partial.suspend();
    assert.deepEqual(readdirSync(layout.partialFolder), []);
    assert.equal(faults.openFiles, 0);
  });

  void it("creates its folders again after the root was emptied", async (test) => {
    const { store, layout, faults } = await makeStorage(test);
    const { digest, bytes } = content("emptied", 10);
    const empty = (): void => {
      for (const name of readdirSync(layout.root)) {
        rmSync(`${layout.root}/${name}`, { recursive: true });
      }
    };
    empty();
    assert.equal(await store.open(digest, bytes.length), undefined);
    await store.probe();
    empty();
    await store.put(digest, bytes);
    empty();
    const partial = await store.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: bytes.length,
    });
    await partial.append([bytes]);
    rmSync(`${layout.root}/blobs`, { recursive: true });
    await partial.commit(digest);
    assert.deepEqual(await store.read(digest, bytes.length), bytes);
    assert.equal(faults.openFiles, 0);
  });

  void it("hashes passed bytes on the calling thread if no worker can be started", async (test) => {
    const layout = diskLayout(await tempDir(test));
    const store = createFsBlobStore({
      layout,
      hashes: createBackgroundHashes(() => {
        throw new Error("no thread");
      }),
    });
    const { digest, bytes } = content("threadless", 2 * MIB);
    const hash = store.createHash("sha256", undefined);
    hash.update(bytes);
    assert.equal(await hash.digest(), digest);
    await assert.rejects(
      store.beginWrite({ kind: "fill", digest, expectedBytes: bytes.length }),
      {
        name: "StorageError",
        code: "EAGAIN",
      },
    );
  });

  void it("reports a full disk as not writable, and leaves no file", async (test) => {
    const { store, layout, faults } = await makeStorage(test);
    for (const call of ["open", "writev", "fdatasync"] as const) {
      faults.fail(call, "ENOSPC");
      await assert.rejects(store.probe(), { code: "ENOSPC" });
    }
    await store.probe();
    assert.deepEqual(readdirSync(layout.partialFolder), []);
    assert.equal(faults.openFiles, 0);
  });
});
