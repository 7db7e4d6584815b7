import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import Database from "better-sqlite3";
import {
  diskLayout,
  layoutFolders,
} from "../../../src/storage/local/root/disk-layout.ts";
import { Evictor } from "../../../src/retention/evictor.ts";
import type { RoomLimits } from "../../../src/retention/room-limits.ts";
import type { StorageSpace } from "../../../src/storage/storage.ts";
import { nodeFileSystem } from "../../../src/storage/local/root/file-system.ts";
import { createFsBlobStore } from "../../../src/storage/local/blobs/fs-blob-store.ts";
import {
  IndexError,
  type MetadataIndex,
} from "../../../src/storage/metadata-index.ts";
import { openSqliteIndex } from "../../../src/storage/local/index/open-sqlite-index.ts";
import { trackBlobStore } from "../../../src/storage/tracked-blob-store.ts";
import type { ChildDescriptor } from "../../../src/oci/descriptor.ts";
import { type Digest, digestOf } from "../../../src/oci/digest.ts";
import { keyOf, tag } from "../../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { ManualSchedule } from "../../support/manual-schedule.ts";
import { tempDir } from "../../support/temp-dir.ts";

const alpine = keyOf("docker.io", "library/alpine");
const MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json";
const LAYER_BYTES = 1_000;
const MANIFEST_BYTES = 100;

async function setUp(
  test: AfterTest,
  limits: Partial<RoomLimits> = {},
  space?: () => StorageSpace,
) {
  const layout = diskLayout(join(await tempDir(test), "data"));
  for (const folder of layoutFolders(layout)) {
    await nodeFileSystem.makeFolder(folder);
  }
  const clock = new FakeClock();
  const { index } = openSqliteIndex({ path: layout.indexFile, clock });
  const blobs = trackBlobStore(createFsBlobStore({ layout }));
  releaseAfter(test, async () => {
    await blobs.close();
    await index.close();
  });
  const schedule = new ManualSchedule();
  const warnings: unknown[] = [];
  const create = (
    over: Partial<MetadataIndex> = {},
    onCleared: (bytes: number) => void = () => undefined,
  ): Evictor => {
    const evictor = new Evictor({
      index: new Proxy(index, {
        get: (target, name) => {
          const value: unknown =
            Reflect.get(over, name) ?? Reflect.get(target, name);
          return typeof value === "function" ? value.bind(target) : value;
        },
      }),
      blobs,
      limits: {
        maxSize: { bytes: Number.MAX_SAFE_INTEGER },
        minFree: { bytes: 0 },
        maxIdleMs: Infinity,
        isKept: () => false,
        ...limits,
      },
      readSpace: () => Promise.resolve(space?.()),
      clock,
      log: {
        info: () => undefined,
        warn: (fault: unknown) => warnings.push(fault),
      },
      schedule: schedule.start,
      clearLeftovers: async (bytes) => onCleared(bytes),
    });
    releaseAfter(test, () => evictor.stop());
    return evictor;
  };
  const put = async (text: string, sizeBytes: number): Promise<Digest> => {
    const bytes = Buffer.alloc(sizeBytes, text);
    const digest = digestOf(bytes);
    await blobs.put(digest, bytes);
    return digest;
  };
  /** Stores an image with one layer of its own. */
  const store = async (name: string): Promise<void> => {
    clock.advance(1_000);
    const layer = await put(`layer of ${name}`, LAYER_BYTES);
    const manifest = await put(`manifest of ${name}`, MANIFEST_BYTES);
    const child: ChildDescriptor = {
      digest: layer,
      sizeBytes: LAYER_BYTES,
      mediaType: MEDIA_TYPE,
      role: "blob",
      isForeign: false,
    };
    const storedAtMs = clock.nowMs();
    await index.recordBlob(alpine, {
      digest: manifest,
      sizeBytes: MANIFEST_BYTES,
      storedAtMs,
      manifest: {
        mediaType: MEDIA_TYPE,
        children: [child],
        subject: undefined,
      },
    });
    await index.putTag(alpine, tag(name), manifest, storedAtMs);
    await index.recordBlob(alpine, {
      digest: layer,
      sizeBytes: LAYER_BYTES,
      storedAtMs,
    });
  };
  const files = (): number => readdirSync(layout.blobFolder("sha256")).length;
  const tags = async (): Promise<readonly string[]> =>
    index.listTags(alpine, 100, undefined);
  return {
    layout,
    index,
    blobs,
    clock,
    schedule,
    warnings,
    create,
    store,
    files,
    tags,
  };
}

void describe("the evictor", () => {
  void it("frees five percent more than needed", async (test) => {
    const { create, store, index, tags } = await setUp(test, {
      maxSize: { bytes: 30 * 1_100 },
    });
    for (let i = 0; i < 51; i++) await store(`t${i + 10}`);
    const evicted = await create().evict({ isDryRun: false });
    // 21 images exceed the limit, and five percent of them is a little more than one.
    assert.equal(evicted.length, 23);
    assert.equal((await tags()).length, 28);
    assert.equal((await index.totals()).blobBytes, 28 * 1_100);
  });

  void it("evicts the least recently pulled images while the index exceeds its bound, a few per check", async (test) => {
    const { create, store, tags } = await setUp(test, {
      maxSize: { bytes: 1_000_000 },
    });
    for (let i = 0; i < 20; i++) await store(`t${i + 10}`);
    let checks = 0;
    const evictor = create({
      usedBytes: async () => {
        checks += 1;
        return 1024 ** 3;
      },
    });
    evictor.start();
    await evictor.evict({ isDryRun: true });
    assert.ok(checks > 0);
    assert.deepEqual(await tags(), ["t26", "t27", "t28", "t29"]);
  });

  void it("keeps minFree of the file system free", async (test) => {
    let freeBytes = 10_000;
    const { create, store, tags } = await setUp(
      test,
      { minFree: { share: 0.05 } },
      () => ({ totalBytes: 200_000, freeBytes }),
    );
    for (const name of ["a", "b", "c"]) await store(name);
    const evictor = create();
    assert.deepEqual(await evictor.evict({ isDryRun: false }), []);
    freeBytes = 9_000;
    const [victim, ...others] = await evictor.evict({ isDryRun: true });
    assert.deepEqual(others, []);
    assert.equal(victim?.reason, "free");
    assert.equal((await tags()).length, 3);
  });

  void it("completes at its start an eviction that a kill interrupted after the root was dropped", async (test) => {
    const { create, store, files, index, schedule } = await setUp(test);
    await store("a");
    await store("b");
    await index.dropRoot(alpine, { kind: "tag", tag: tag("a") });
    assert.equal(files(), 4);
    const evictor = create();
    evictor.start();
    assert.equal(await evictor.makeRoom(0), true);
    assert.equal(files(), 2);
    assert.equal((await index.totals()).blobs, 2);
    await evictor.stop();
    assert.deepEqual(schedule.delaysMs, []);
  });

  void it("leaves no rows of an evicted image in the index", async (test) => {
    const { create, store, layout } = await setUp(test);
    await store("a");
    await store("b");
    await create().evict({ toBytes: 0, isDryRun: false });
    const database = new Database(layout.indexFile, { readonly: true });
    releaseAfter(test, () => {
      database.close();
    });
    for (const table of [
      "blobs",
      "links",
      "edges",
      "tags",
      "roots",
      "condemned",
      "digests",
    ]) {
      const rows: unknown = database
        .prepare(`SELECT count(*) FROM ${table}`)
        .pluck()
        .get();
      assert.equal(rows, 0, table);
    }
  });

  void it("keeps a blob that can't be removed until the next check", async (test) => {
    const { create, store, files, blobs, index, schedule, warnings } =
      await setUp(test);
    await store("a");
    const remove = blobs.remove.bind(blobs);
    blobs.remove = () => Promise.reject(new Error("EIO"));
    const evictor = create();
    await evictor.evict({ toBytes: 0, isDryRun: false });
    assert.equal(files(), 2);
    assert.ok(warnings.length > 0);
    assert.equal((await index.totals()).blobs, 2);
    blobs.remove = remove;
    evictor.start();
    assert.equal(
      await evictor.remove(alpine, { kind: "tag", tag: tag("a") }),
      undefined,
    );
    assert.equal(files(), 0);
    assert.equal((await index.totals()).blobs, 0);
    assert.ok(schedule.delaysMs.length > 0);
  });

  void it("removes the bytes first if the index can't record the eviction", async (test) => {
    const { create, store, files, index } = await setUp(test);
    await store("a");
    let isFull = true;
    const filesThen: number[] = [];
    const evictor = create({
      dropRoot: (...args) => {
        filesThen.push(files());
        if (!isFull) return index.dropRoot(...args);
        isFull = false;
        return Promise.reject(new IndexError("dropRoot: SQLITE_FULL"));
      },
    });
    const evicted = await evictor.evict({ toBytes: 0, isDryRun: false });
    assert.equal(evicted.length, 1);
    assert.deepEqual(filesThen, [2, 0]);
    assert.equal((await index.totals()).blobs, 0);
  });

  void it("removes nothing while another process locks the index, and everything afterwards", async (test) => {
    const { create, store, files, layout, index } = await setUp(test);
    await store("a");
    const before = files();
    const other = new Database(layout.indexFile);
    releaseAfter(test, () => void other.close());
    let isAsked = false;
    const evictor = create({
      dropRoot: (...args) => {
        if (!isAsked) other.exec("BEGIN IMMEDIATE");
        isAsked = true;
        return index.dropRoot(...args);
      },
    });
    const whileHeld = await evictor.evict({ toBytes: 0, isDryRun: false });
    assert.ok(isAsked);
    assert.deepEqual(whileHeld, []);
    assert.equal(files(), before);
    other.exec("ROLLBACK");
    const evicted = await evictor.evict({ toBytes: 0, isDryRun: false });
    assert.equal(evicted.length, 1);
    assert.equal(files(), 0);
  });

  void it("drops a root whose bytes were removed first once the index is writable, even if it was used meanwhile", async (test) => {
    const { create, store, files, index, clock } = await setUp(test);
    await store("a");
    let isFull = true;
    const evictor = create({
      dropRoot: (...args) =>
        isFull
          ? Promise.reject(new IndexError("dropRoot: SQLITE_FULL"))
          : index.dropRoot(...args),
    });
    await assert.rejects(evictor.evict({ toBytes: 0, isDryRun: false }));
    assert.equal(files(), 0);
    assert.equal((await index.totals()).blobs, 2);
    index.touchTag(alpine, tag("a"), clock.nowMs() + 1);
    isFull = false;
    await evictor.evict({ isDryRun: false });
    assert.equal((await index.totals()).blobs, 0);
    assert.deepEqual(await index.listTags(alpine, 9, undefined), []);
  });

  void it("clears leftovers beyond a tenth of the limit with each check and each order", async (test) => {
    const cleared: number[] = [];
    const { create, schedule } = await setUp(test, {
      maxSize: { bytes: 5_000 },
    });
    const evictor = create({}, (bytes) => cleared.push(bytes));
    evictor.start();
    await evictor.evict({ isDryRun: true });
    await evictor.evict({ isDryRun: false });
    schedule.runNext();
    await evictor.makeRoom(0);
    assert.deepEqual(cleared, [500, 500, 500]);
  });

  void it("evicts at most a tenth of the cache per check when the clock is set forward", async (test) => {
    const { create, store, clock, tags } = await setUp(test, {
      maxIdleMs: 86_400_000,
    });
    for (let i = 0; i < 40; i++) await store(`t${i + 10}`);
    clock.setWall(clock.nowMs() + 10 * 365 * 86_400_000);
    const evictor = create();
    evictor.start();
    await evictor.makeRoom(0);
    assert.equal((await tags()).length, 24);
  });

  void it("makes room for bytes about to be stored, or reports that there is none", async (test) => {
    const { create, store, tags } = await setUp(test, {
      maxSize: { bytes: 3_300 },
    });
    for (const name of ["a", "b", "c"]) await store(name);
    const evictor = create();
    assert.equal(await evictor.makeRoom(1_000), true);
    assert.deepEqual(await tags(), ["b", "c"]);
    assert.equal(await evictor.makeRoom(4_000), false);
  });
});
