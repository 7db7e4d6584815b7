import { RootInUseError } from "../../src/storage/storage-root-errors.ts";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { parseUploadId, type UploadId } from "../../src/storage/blob-store.ts";
import {
  openLocalStorage,
  type LocalStorageOptions,
  type LocalStorage,
} from "../../src/storage/local/open-local-storage.ts";
import { content } from "../contract/blob-store-contract.ts";
import {
  keyOf,
  manifestOf,
  named,
  tag,
} from "../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "../support/after-test.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { FaultyFileSystem } from "../support/faulty-file-system.ts";
import { tempDir } from "../support/temp-dir.ts";

const MIB = 1024 * 1024;
const alpine = keyOf("docker.io", "library/alpine");
const HOLDER = fileURLToPath(
  new URL("../support/cache-holder.ts", import.meta.url),
);

interface Opened {
  readonly cache: LocalStorage;
  readonly messages: readonly string[];
}

/** Opens the storage at a root; closed after the test. */
async function open(
  test: AfterTest,
  root: string,
  options: Partial<LocalStorageOptions> = {},
): Promise<Opened> {
  const messages: string[] = [];
  const write = (_fields: unknown, message?: string): void => {
    messages.push(message ?? "");
  };
  const cache = await openLocalStorage({
    root,
    clock: new FakeClock(),
    log: { info: write, warn: write, error: write },
    ...options,
  });
  releaseAfter(test, () => cache.close());
  return { cache, messages };
}

interface Holder {
  readonly pid: number;
  readonly kill: () => Promise<void>;
}

/** Starts a process that holds the root and has stored half a blob. */
async function holdRoot(
  test: AfterTest,
  input: readonly string[],
): Promise<Holder> {
  const child = spawn(process.execPath, [HOLDER, ...input], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exit = once(child, "exit");
  const kill = async (): Promise<void> => {
    child.kill("SIGKILL");
    await exit;
  };
  releaseAfter(test, kill);
  await Promise.race([
    once(child.stdout, "data"),
    exit.then(() => assert.fail("the holder ended early")),
  ]);
  assert(child.pid !== undefined);
  return { pid: child.pid, kill };
}

function uploadId(text: string): UploadId {
  const id = parseUploadId(text);
  assert(id !== undefined);
  return id;
}

function putUpload({ index }: LocalStorage, id: UploadId): Promise<void> {
  return index.putUpload({
    id,
    key: keyOf("local", "team/app"),
    algorithm: "sha256",
    startedAtMs: 1,
    touchedAtMs: 1,
  });
}

void describe("opening a storage root", () => {
  void it("creates its private tree, and keeps existing content", async (test) => {
    const root = join(await tempDir(test), "data");
    const { cache } = await open(test, root);
    const { digest, bytes } = content("kept", 10);
    await cache.blobs.put(digest, bytes);
    await cache.index.recordBlob(alpine, {
      ...manifestOf(digest, []),
      sizeBytes: 10,
    });
    await cache.upkeep.recovered();
    await cache.upkeep.restoreBallast();
    assert.deepEqual(readdirSync(root).sort(), [
      "ballast",
      "blobs",
      "index.sqlite",
      "index.sqlite-shm",
      "index.sqlite-wal",
      "lock",
      "lock-owner",
      "partial",
      "roots.jsonl",
    ]);
    assert.deepEqual(readdirSync(join(root, "blobs")).sort(), [
      "sha256",
      "sha512",
    ]);
    for (const path of ["", "blobs", "blobs/sha256", "partial"]) {
      assert.equal(statSync(join(root, path)).mode & 0o777, 0o700, path);
    }
    for (const path of [
      "index.sqlite",
      "index.sqlite-wal",
      "lock",
      "lock-owner",
      "ballast",
      "roots.jsonl",
    ]) {
      assert.equal(statSync(join(root, path)).mode & 0o777, 0o600, path);
    }
    await cache.close();
    assert.deepEqual(readdirSync(root).sort(), [
      "ballast",
      "blobs",
      "clean",
      "index.sqlite",
      "lock",
      "partial",
      "roots.jsonl",
    ]);
    assert.equal(statSync(join(root, "clean")).mode & 0o777, 0o600);
    const again = await open(test, root);
    assert.deepEqual(await again.cache.blobs.read(digest, 10), bytes);
    assert.notEqual(
      await again.cache.index.getLinkedBlob(alpine, digest),
      undefined,
    );
    assert.deepEqual(again.messages, ["opened the storage root"]);
  });

  void it("rejects a root that this process has open, and opens it afterwards", async (test) => {
    const root = await tempDir(test);
    const first = await open(test, root);
    await assert.rejects(open(test, root), (error) => {
      assert(error instanceof RootInUseError);
      assert.equal(error.pid, process.pid);
      return true;
    });
    // The rejection released nothing.
    await assert.rejects(open(test, root), RootInUseError);
    await first.cache.close();
    await open(test, root);
    await first.cache.close();
    assert.equal(
      readFileSync(join(root, "lock-owner"), "utf8"),
      `${process.pid}\n`,
    );
  });

  void it("locks and unlocks the root if the owner's id can be neither written nor removed", async (test) => {
    const root = await tempDir(test);
    mkdirSync(join(root, "lock-owner", "in the way"), { recursive: true });
    const { cache } = await open(test, root);
    await assert.rejects(open(test, root), RootInUseError);
    await cache.close();
    await open(test, root);
  });

  void it("rejects a root that another process has open, naming it; after a kill, continues its partial", async (test) => {
    const root = await tempDir(test);
    const { digest, bytes } = content("half", 4 * MIB);
    const holder = await holdRoot(test, [root, digest, "half", `${4 * MIB}`]);
    await assert.rejects(open(test, root), {
      name: "RootInUseError",
      message: `the storage root ${root} is in use by process ${holder.pid}`,
    });
    await holder.kill();
    const { cache } = await open(test, root);
    const partial = await cache.blobs.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: bytes.length,
    });
    assert.equal(partial.writtenBytes, 2 * MIB);
    await partial.append([bytes.subarray(2 * MIB)]);
    assert.equal(await partial.hash.digest(), digest);
    await partial.commit(digest);
    assert.deepEqual(await cache.blobs.read(digest, bytes.length), bytes);
  });

  void it("drops the partials of another boot, because their bytes may be lost", async (test) => {
    const root = await tempDir(test);
    const { digest } = content("half", MIB);
    const input = [root, digest, "half", `${MIB}`];
    const first = await holdRoot(test, [...input, "boot one"]);
    await first.kill();
    const same = await open(test, root, { bootId: "boot one" });
    assert.deepEqual(readdirSync(join(root, "partial")).sort(), [
      "boot-id",
      digest.replace(":", "-"),
    ]);
    await same.cache.close();
    const other = await open(test, root, { bootId: "boot two" });
    assert.deepEqual(readdirSync(join(root, "partial")), ["boot-id"]);
    assert.equal(
      readFileSync(join(root, "partial", "boot-id"), "utf8"),
      "boot two\n",
    );
    const partial = await other.cache.blobs.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: MIB,
    });
    assert.equal(partial.writtenBytes, 0);
    await partial.abort();
  });

  void it("removes leftovers of a crash, but not the partials of fills and uploads", async (test) => {
    const root = await tempDir(test);
    const { cache } = await open(test, root);
    const id = uploadId("0123456789abcdef");
    await putUpload(cache, id);
    await cache.close();
    const folder = join(root, "partial");
    const name = named("partial").replace(":", "-");
    writeFileSync(join(folder, name), "kept");
    const upload = `upload-${id}`;
    writeFileSync(join(folder, upload), "kept");
    writeFileSync(join(folder, "upload-without-session-0"), "left");
    writeFileSync(join(folder, "upload-SHORT"), "left");
    writeFileSync(join(folder, "temporary-put-7"), "left");
    writeFileSync(join(folder, `${name}0`), "left");
    writeFileSync(join(folder, name.toUpperCase()), "left");
    mkdirSync(join(folder, named("folder").replace(":", "-"), "below"), {
      recursive: true,
    });
    const again = await open(test, root);
    assert.deepEqual(readdirSync(folder).sort(), ["boot-id", name, upload]);
    assert.equal(await again.cache.blobs.readUploadSize(id), 4);
  });

  void it("lets an upload start again at 0 after another boot, because its bytes were not synced", async (test) => {
    const root = await tempDir(test);
    const first = await open(test, root, { bootId: "boot one" });
    const id = uploadId("0123456789abcdef");
    await putUpload(first.cache, id);
    const target = { kind: "upload", id, algorithm: "sha256" } as const;
    const writer = await first.cache.blobs.beginWrite(target);
    await writer.append([Buffer.from("half")]);
    await writer.suspend();
    await first.cache.close();
    const same = await open(test, root, { bootId: "boot one" });
    assert.equal(await same.cache.blobs.readUploadSize(id), 4);
    await same.cache.close();
    const other = await open(test, root, { bootId: "boot two" });
    assert.equal(await other.cache.blobs.readUploadSize(id), 0);
    assert.notEqual(await other.cache.index.getUpload(id), undefined);
    const again = await other.cache.blobs.beginWrite(target);
    assert.equal(again.writtenBytes, 0);
    await again.abort();
  });

  void it("keeps the id of another boot if one of its partials could not be removed", async (test) => {
    const root = await tempDir(test);
    const { digest } = content("half", MIB);
    const first = await open(test, root, { bootId: "boot one" });
    const partial = await first.cache.blobs.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: MIB,
    });
    await partial.append([Buffer.from("half")]);
    await partial.suspend();
    await first.cache.close();
    const faults = new FaultyFileSystem();
    // Either boot-id or the partial remains.
    faults.fail("removeTree", "EIO", 2);
    const second = await open(test, root, {
      bootId: "boot two",
      fileSystem: faults.fileSystem,
    });
    await second.cache.close();
    await open(test, root, { bootId: "boot two" });
    assert.deepEqual(readdirSync(join(root, "partial")), ["boot-id"]);
  });

  void it("closes the index and unlocks the root after another close failed, without marking a clean stop", async (test) => {
    const root = await tempDir(test);
    const { cache } = await open(test, root);
    await cache.upkeep.recovered();
    await cache.index.recordBlob(alpine, manifestOf(named("a"), []));
    await cache.index.putTag(alpine, tag("latest"), named("a"), 1);
    const { blobs } = cache;
    const { mock } = test.mock.method(blobs, "close", () =>
      Promise.reject(new Error("a thread that stays")),
    );
    await assert.rejects(cache.close(), /a thread that stays/);
    mock.restore();
    await assert.rejects(cache.index.probe(), { name: "IndexError" });
    assert.match(readFileSync(join(root, "roots.jsonl"), "utf8"), /:latest"/);
    assert(!existsSync(join(root, "clean")));
    await open(test, root);
  });

  for (const { call, code, pattern } of [
    {
      call: "open",
      code: "EACCES",
      pattern: /creating \S+\/partial\/\S+ failed with EACCES/,
    },
    {
      call: "rename",
      code: "EXDEV",
      pattern:
        /renaming \S+\/partial\/\S+ to \S+\/blobs\/sha256\/\S+ failed with EXDEV/,
    },
    {
      call: "fsync",
      code: "EINVAL",
      pattern: /syncing \S+\/blobs\/sha256 failed with EINVAL/,
    },
    {
      call: "makeFolder",
      code: "EROFS",
      pattern: /making the folder \S+ failed with EROFS/,
    },
  ] as const) {
    void it(`rejects a root in which ${call} fails with ${code}, naming the path, and unlocks it`, async (test) => {
      const root = await tempDir(test);
      const faults = new FaultyFileSystem();
      faults.fail(call, code);
      await assert.rejects(
        open(test, root, { fileSystem: faults.fileSystem }),
        pattern,
      );
      assert.equal(faults.openFiles, 0);
      await open(test, root);
    });
  }

  void it("opens a root on a full disk", async (test) => {
    const root = await tempDir(test);
    const faults = new FaultyFileSystem();
    faults.fail("fdatasync", "ENOSPC");
    const { cache, messages } = await open(test, root, {
      fileSystem: faults.fileSystem,
    });
    assert.deepEqual(messages, [
      "the disk of the storage root is full: pulls pass through",
      "opened the storage root",
    ]);
    await cache.blobs.probe();
  });

  void it("logs a damaged index, and starts a new one", async (test) => {
    const root = await tempDir(test);
    const { cache } = await open(test, root);
    await cache.index.recordBlob(alpine, manifestOf(named("a"), []));
    await cache.close();
    writeFileSync(join(root, "index.sqlite"), Buffer.alloc(10_000, 1));
    const again = await open(test, root);
    await again.cache.upkeep.recovered();
    assert.deepEqual(again.messages, [
      "the index was damaged; created a new one at start",
      "opened the storage root",
      "index and blobs were compared",
    ]);
    assert.equal((await again.cache.index.totals()).blobs, 0);
    assert(existsSync(join(root, "index.sqlite.corrupt-20260101T000000Z")));
  });

  void it("reads no blob after a clean stop", async (test) => {
    const root = await tempDir(test);
    const { cache } = await open(test, root);
    for (let i = 0; i < 50; i += 1) {
      const { digest, bytes } = content(`${i}`, 10);
      await cache.blobs.put(digest, bytes);
    }
    await cache.close();
    const faults = new FaultyFileSystem();
    const again = await open(test, root, { fileSystem: faults.fileSystem });
    await again.cache.upkeep.recovered();
    await again.cache.upkeep.restoreBallast();
    assert.equal(faults.countOf("list"), 1);
    assert.equal(faults.countOf("eachName"), 0);
    // Two calls are for the ballast, one is for the size of the journal.
    assert.equal(faults.countOf("statPath"), 3);
  });
});
