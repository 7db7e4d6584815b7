import assert from "node:assert/strict";
import { readdirSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  diskLayout,
  layoutFolders,
} from "../../../../../src/storage/local/root/disk-layout.ts";
import { nodeFileSystem } from "../../../../../src/storage/local/root/file-system.ts";
import { createFsBlobStore } from "../../../../../src/storage/local/blobs/fs-blob-store.ts";
import { LeftPartials } from "../../../../../src/storage/local/blobs/left-partials.ts";
import { trackBlobStore } from "../../../../../src/storage/tracked-blob-store.ts";
import type { UploadRow } from "../../../../../src/storage/hosted-index.ts";
import { parseRepositoryName } from "../../../../../src/oci/reference.ts";
import {
  IMPORT_ID_PREFIX,
  parseUploadId,
} from "../../../../../src/storage/blob-store.ts";
import { type Digest, digestOf } from "../../../../../src/oci/digest.ts";
import {
  type AfterTest,
  releaseAfter,
} from "../../../../support/after-test.ts";
import { FakeClock } from "../../../../support/fake-clock.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

const HOUR_MS = 3_600_000;
const SIZE = 1_000;

async function setUp(test: AfterTest) {
  const layout = diskLayout(join(await tempDir(test), "data"));
  for (const folder of layoutFolders(layout)) {
    await nodeFileSystem.makeFolder(folder);
  }
  const clock = new FakeClock();
  const blobs = trackBlobStore(createFsBlobStore({ layout }));
  releaseAfter(test, () => blobs.close());
  const given: unknown[] = [];
  const uploads = new Map<string, UploadRow>();
  const index = {
    isFailing: false,
    getUpload: (id: string) =>
      index.isFailing
        ? Promise.reject(new Error("the index failed"))
        : Promise.resolve(uploads.get(id)),
  };
  const partials = new LeftPartials({
    layout,
    fileSystem: nodeFileSystem,
    blobs,
    index,
    clock,
    log: { info: (fields: unknown) => given.push(fields) },
  });
  const open = async (name: string) => {
    const digest = digestOf(Buffer.from(name));
    const partial = await blobs.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: SIZE * 2,
    });
    await partial.append([Buffer.alloc(SIZE)]);
    return { digest, partial };
  };
  /** Leaves the partial of a download that was interrupted so many hours ago. */
  const leave = async (name: string, hoursAgo: number): Promise<Digest> => {
    const { digest, partial } = await open(name);
    await partial.suspend();
    const at = new Date(clock.nowMs() - hoursAgo * HOUR_MS);
    utimesSync(layout.partialFile(digest), at, at);
    return digest;
  };
  const left = (): number => readdirSync(layout.partialFolder).length;
  return {
    clock,
    layout,
    blobs,
    uploads,
    index,
    partials,
    open,
    leave,
    left,
    given,
  };
}

void describe("abandoned partials", () => {
  void it("are kept for a day", async (test) => {
    const { clock, partials, leave, left, given } = await setUp(test);
    await leave("new", 1);
    const old = await leave("old", 23);
    await partials.trim(Infinity);
    assert.equal(left(), 2);
    clock.advance(2 * HOUR_MS);
    await partials.trim(Infinity);
    assert.equal(left(), 1);
    assert.deepEqual(given, [{ digest: old, sizeBytes: SIZE }]);
  });

  void it("are kept up to a limit, the newest first", async (test) => {
    const { layout, partials, leave } = await setUp(test);
    const names = ["a", "b", "c", "d"];
    const digests: Digest[] = [];
    for (const [at, name] of names.entries()) {
      digests.push(await leave(name, names.length - at));
    }
    await partials.trim(2 * SIZE);
    assert.deepEqual(
      readdirSync(layout.partialFolder).toSorted(),
      digests
        .slice(2)
        .map((digest) => digest.replace(":", "-"))
        .toSorted(),
    );
    await partials.trim(0);
    assert.deepEqual(readdirSync(layout.partialFolder), []);
  });

  void it("of uploads are kept for a day, and while they are written", async (test) => {
    const { blobs, clock, layout, partials, left, given } = await setUp(test);
    const id = parseUploadId("an-upload-that-stopped");
    assert(id !== undefined);
    const target = { kind: "upload", id, algorithm: "sha256" } as const;
    const first = await blobs.beginWrite(target);
    await first.append([Buffer.alloc(SIZE)]);
    const twoDaysAgo = new Date(clock.nowMs() - 48 * HOUR_MS);
    utimesSync(layout.uploadFile(id), twoDaysAgo, twoDaysAgo);
    await partials.trim(Infinity);
    assert.equal(left(), 1);
    await first.suspend();
    await partials.trim(Infinity);
    assert.equal(left(), 0);
    assert.deepEqual(given, [{ upload: id, sizeBytes: SIZE }]);
  });

  void it("of uploads that can be resumed stay, and are not counted", async (test) => {
    const { blobs, layout, partials, uploads, index, leave, left } =
      await setUp(test);
    const id = parseUploadId("an-upload-that-goes-on");
    const repository = parseRepositoryName("app");
    assert(id !== undefined && repository !== undefined);
    const writer = await blobs.beginWrite({
      kind: "upload",
      id,
      algorithm: "sha256",
    });
    await writer.append([Buffer.alloc(SIZE)]);
    await writer.suspend();
    utimesSync(layout.uploadFile(id), 0, 0);
    uploads.set(id, {
      id,
      key: { upstream: "local", repository },
      algorithm: "sha256",
      startedAtMs: 0,
      touchedAtMs: 0,
    });
    await leave("new", 1);
    await partials.trim(SIZE);
    assert.equal(left(), 2);
    uploads.clear();
    // While the index can't answer, no upload is known to be abandoned.
    index.isFailing = true;
    await partials.trim(SIZE);
    assert.equal(left(), 2);
    index.isFailing = false;
    await partials.trim(SIZE);
    assert.equal(left(), 1);
  });

  void it("are not removed while they are written or read", async (test) => {
    const { clock, partials, open, left } = await setUp(test);
    const { partial } = await open("fill");
    const reader = await partial.openReader();
    clock.setWall(Date.now() + 48 * HOUR_MS);
    await partials.trim(0);
    assert.equal(left(), 1);
    await partial.suspend();
    await partials.trim(0);
    assert.equal(left(), 1);
    await reader.close();
    await partials.trim(0);
    assert.equal(left(), 0);
  });

  void it("are none if the folder is absent, and exclude files with foreign names", async (test) => {
    const { layout, partials, left } = await setUp(test);
    writeFileSync(join(layout.partialFolder, "boot-id"), "");
    await partials.trim(0);
    assert.equal(left(), 1);
    await nodeFileSystem.removeTree(layout.partialFolder);
    await partials.trim(0);
  });

  void it("of imports are removed at once, unless one is being written", async (test) => {
    const { blobs, partials, left } = await setUp(test);
    const begin = async (name: string) => {
      const id = parseUploadId(`${IMPORT_ID_PREFIX}${name.padEnd(16, "0")}`);
      assert(id !== undefined);
      const writer = await blobs.beginWrite({
        kind: "upload",
        id,
        algorithm: "sha256",
      });
      await writer.append([Buffer.alloc(SIZE)]);
      return writer;
    };
    await (await begin("killed")).suspend();
    const running = await begin("running");
    assert.equal(left(), 2);
    await partials.trim(Infinity);
    assert.equal(left(), 1);
    await running.abort();
    assert.equal(left(), 0);
  });
});
