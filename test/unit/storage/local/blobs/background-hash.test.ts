import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { constants, openSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";
import {
  type BackgroundHashes,
  createBackgroundHashes,
  startHashWorker,
} from "../../../../../src/storage/local/blobs/background-hash.ts";
import type { HashWorkerData } from "../../../../../src/storage/local/blobs/hash-worker.ts";
import { SharedFile } from "../../../../../src/storage/local/blobs/shared-file.ts";
import { digestOf } from "../../../../../src/oci/digest.ts";
import {
  type AfterTest,
  releaseAfter,
} from "../../../../support/after-test.ts";
import { FaultyFileSystem } from "../../../../support/faulty-file-system.ts";
import { seededBytes } from "../../../../support/seeded-bytes.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

const MIB = 1024 * 1024;

interface Bench {
  readonly hashes: BackgroundHashes;
  /** All started workers. */
  readonly workers: Worker[];
  readonly faults: FaultyFileSystem;
  /** The data that each of them was started with. */
  readonly workerData: HashWorkerData[];
  readonly file: (name: string, bytes: Buffer) => Promise<SharedFile>;
}

/** @param start replaces the start of the first worker */
async function makeBench(
  test: AfterTest,
  start: (data: HashWorkerData) => Worker = startHashWorker,
): Promise<Bench> {
  const folder = await tempDir(test);
  const workers: Worker[] = [];
  const workerData: HashWorkerData[] = [];
  const hashes = createBackgroundHashes((data) => {
    const worker = (workers.length === 0 ? start : startHashWorker)(data);
    workers.push(worker);
    workerData.push(data);
    return worker;
  });
  releaseAfter(test, () => hashes.close());
  const faults = new FaultyFileSystem();
  return {
    hashes,
    workers,
    workerData,
    faults,
    file: async (name, bytes) => {
      const path = join(folder, name);
      writeFileSync(path, bytes);
      const { fileSystem } = faults;
      return new SharedFile(
        fileSystem,
        await fileSystem.open(path, constants.O_RDWR),
      );
    },
  };
}

function bytesOf(seed: string, sizeBytes: number): Buffer {
  return seededBytes(seed, sizeBytes).read(0, sizeBytes);
}

void describe("background hashes", () => {
  void it("start no worker before the first hash", async (test) => {
    const { hashes, workers } = await makeBench(test);
    assert.equal(workers.length, 0);
    hashes.open("sha256", undefined).close();
    hashes.open("sha512", undefined).close();
    assert.equal(workers.length, 1);
  });

  void it("take turns, so that a long one does not delay the others", async (test) => {
    const { hashes, file } = await makeBench(test);
    const long = bytesOf("long", 64 * MIB);
    const short = bytesOf("short", MIB);
    const [longFile, shortFile] = [
      await file("long", long),
      await file("short", short),
    ];
    const order: string[] = [];
    const longHash = hashes.open("sha256", longFile);
    longHash.addStored([], long.length);
    const longDigest = longHash.digest().then((digest) => {
      order.push("long");
      return digest;
    });
    const shortHash = hashes.open("sha256", shortFile);
    shortHash.addStored([], short.length);
    assert.equal(await shortHash.digest(), digestOf(short));
    order.push("short");
    assert.equal(await longDigest, digestOf(long));
    assert.deepEqual(order, ["short", "long"]);
    longHash.close();
    shortHash.close();
    await Promise.all([longFile.release(), shortFile.release()]);
  });

  void it("queue passed bytes up to a limit", async (test) => {
    const { hashes, workerData } = await makeBench(test);
    const bytes = bytesOf("passing", 4 * MIB);
    const hash = hashes.open("sha256", undefined);
    const done = new Int32Array(workerData[0]?.doneBytes ?? new ArrayBuffer(4));
    for (let i = 1; i <= 16; i += 1) {
      hash.update(bytes);
      assert(i * bytes.length - Atomics.load(done, 0) <= 8 * MIB);
    }
    assert.equal(
      await hash.digest(),
      digestOf(Buffer.concat(Array.from({ length: 16 }, () => bytes))),
    );
    hash.close();
  });

  void it("release a file when closed, even midway, but not bytes that a fork needs", async (test) => {
    const { hashes, faults, file } = await makeBench(test);
    const bytes = bytesOf("forked", 32 * MIB);
    const shared = await file("forked", bytes);
    const hash = hashes.open("sha256", shared);
    hash.addStored([], bytes.length);
    const fork = hash.fork();
    const late = assert.rejects(hash.digest(), {
      name: "StorageError",
      code: "ECLOSED",
    });
    hash.close();
    await shared.release();
    assert.equal(await fork.digest(), digestOf(bytes));
    await late;
    fork.close();
    await hashes.close();
    assert.equal(faults.openFiles, 0);
  });

  void it("fail the digest if stored bytes can't be read back", async (test) => {
    const { hashes, file } = await makeBench(test);
    const shared = await file("cut", bytesOf("cut", MIB));
    truncateSync(`/proc/self/fd/${shared.fd}`, MIB / 2);
    const hash = hashes.open("sha256", shared);
    hash.addStored([], MIB);
    const fork = hash.fork();
    for (const one of [hash, fork]) {
      await assert.rejects(one.digest(), {
        name: "StorageError",
        operation: "hash",
        code: "EOF",
      });
      one.close();
    }
    const folder = new SharedFile(
      new FaultyFileSystem().fileSystem,
      openSync("/", "r"),
    );
    const impossible = hashes.open("sha256", folder);
    impossible.addStored([], 1);
    await assert.rejects(impossible.digest(), { code: "EISDIR" });
    impossible.close();
    await Promise.all([shared.release(), folder.release()]);
  });

  void it("survive the death of their worker if all bytes are stored", async (test) => {
    const { hashes, workers, faults, file } = await makeBench(
      test,
      // Accepts every message and answers none.
      () => new Worker("setInterval(() => {}, 60_000)", { eval: true }),
    );
    const bytes = bytesOf("death", 3 * MIB);
    const shared = await file("death", bytes);
    const stored = hashes.open("sha256", shared);
    const passed = hashes.open("sha256", undefined);
    stored.addStored([], MIB);
    passed.update(bytes);
    const failures = [stored, passed].map((hash) =>
      assert.rejects(hash.digest(), { name: "StorageError", code: "EWORKER" }),
    );
    await workers[0]?.terminate();
    await Promise.all(failures);
    stored.addStored([], bytes.length);
    passed.update(bytes);
    assert.equal(await stored.digest(), digestOf(bytes));
    await assert.rejects(passed.digest(), { code: "EWORKER" });
    assert.equal(workers.length, 2);
    stored.update(bytes);
    assert.equal(
      await stored.digest(),
      digestOf(Buffer.concat([bytes, bytes])),
    );
    stored.close();
    passed.close();
    await shared.release();
    await hashes.close();
    assert.equal(faults.openFiles, 0);
  });

  void it("fail after the close of all hashes, and accept no more bytes", async (test) => {
    const { hashes, workers, faults, file } = await makeBench(test);
    const shared = await file("closed", bytesOf("closed", MIB));
    const hash = hashes.open("sha256", shared);
    hash.addStored([], MIB);
    const digest = assert.rejects(hash.digest(), { code: "EWORKER" });
    await hashes.close();
    await digest;
    assert.throws(() => hashes.open("sha256", undefined), { code: "ECLOSED" });
    hash.close();
    await shared.release();
    assert.equal(workers.length, 1);
    assert.equal(faults.openFiles, 0);
  });

  void it("report that no worker can be started", async (test) => {
    const hashes = createBackgroundHashes(() => {
      throw new Error("no thread");
    });
    releaseAfter(test, () => hashes.close());
    assert.throws(() => hashes.open("sha256", undefined), {
      name: "StorageError",
      code: "EAGAIN",
    });
  });

  void it("do not keep the process alive", async () => {
    const module = new URL(
      "../../../../../src/storage/local/blobs/background-hash.ts",
      import.meta.url,
    );
    const { stdout } = await promisify(execFile)(process.execPath, [
      "--input-type=module",
      "--eval",
      `import { createBackgroundHashes } from ${JSON.stringify(module.href)};
       const hash = createBackgroundHashes().open("sha256", undefined);
       hash.update(Buffer.from("left open"));
       console.log(await hash.digest());`,
    ]);
    assert.equal(stdout.trim(), digestOf(Buffer.from("left open")));
  });
});
