import assert from "node:assert/strict";
import {
  existsSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import {
  type BlobStore,
  StorageError,
} from "../../../../src/storage/blob-store.ts";
import { diskLayout } from "../../../../src/storage/local/root/disk-layout.ts";
import { HotManifests } from "../../../../src/storage/hot-manifests.ts";
import {
  openLocalStorage,
  type LocalStorage,
} from "../../../../src/storage/local/open-local-storage.ts";
import { StoredManifests } from "../../../../src/mirror/manifests/stored-manifests.ts";
import { keyOf, tag } from "../../../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { buildImage } from "../../../support/image-builder.ts";
import { ManualSchedule } from "../../../support/manual-schedule.ts";
import { quietLog } from "../../../support/pulling-mirror.ts";
import { storeImage } from "../../../support/stored-images.ts";
import { tempDir } from "../../../support/temp-dir.ts";

const key = keyOf("docker.io", "library/app");
const image = buildImage({ seed: "served", layers: [300] });
const { manifest } = image;
const WEEK_MS = 7 * 24 * 60 * 60 * 1000;

/** A cache with an image whose manifest was read into memory. */
async function setUp(test: AfterTest): Promise<{
  cache: LocalStorage;
  clock: FakeClock;
  hot: HotManifests;
  stored: StoredManifests;
  schedule: ManualSchedule;
  file: string;
  /** How many files were opened in the store. */
  opened: () => number;
  faults: { isFull: boolean; isSlow: Promise<void> | undefined; puts: number };
}> {
  const root = await tempDir(test);
  const clock = new FakeClock();
  const cache = await openLocalStorage({ root, clock, log: quietLog });
  releaseAfter(test, () => cache.close());
  await storeImage(cache, key, image, tag("v"));
  let opened = 0;
  const faults = {
    isFull: false,
    isSlow: undefined as Promise<void> | undefined,
    puts: 0,
  };
  const store: BlobStore = {
    ...cache.blobs,
    open: (...args) => {
      opened += 1;
      return cache.blobs.open(...args);
    },
    read: (...args) => cache.blobs.read(...args),
    remove: (...args) => cache.blobs.remove(...args),
    put: async (...args) => {
      faults.puts += 1;
      await faults.isSlow;
      if (faults.isFull) throw new StorageError("write", "ENOSPC");
      await cache.blobs.put(...args);
    },
  };
  const hot = new HotManifests();
  const schedule = new ManualSchedule();
  const stored = new StoredManifests({
    store,
    index: cache.index,
    hot,
    clock,
    log: quietLog,
    schedule: schedule.start,
    // The upper bound of a wait that never ends by itself.
    patienceMs: 100,
    verifyAfterMs: () => WEEK_MS,
  });
  const { digest, mediaType, bytes } = manifest;
  assert(await stored.read(key, digest, bytes.length, mediaType));
  const file = diskLayout(root).blobFile(digest);
  return {
    cache,
    clock,
    hot,
    stored,
    schedule,
    file,
    opened: () => opened,
    faults,
  };
}

void describe("a manifest that is served from memory", () => {
  void it("is checked on disk once for many hits, and not during a hit", async (test) => {
    const { stored, schedule, opened } = await setUp(test);
    assert.deepEqual(schedule.delaysMs, []);
    for (let hit = 0; hit < 50; hit += 1) {
      assert(stored.recall(key, manifest.digest));
    }
    assert.equal(opened(), 0);
    assert.deepEqual(schedule.delaysMs, [4_000]);
    await stored.settle();
    assert.equal(opened(), 1);
    assert.deepEqual(schedule.delaysMs, []);
  });

  void it("is checked again only after an interval, for any number of hits", async (test) => {
    const { stored, schedule, opened } = await setUp(test);
    for (let look = 1; look <= 3; look += 1) {
      assert(stored.recall(key, manifest.digest));
      assert.deepEqual(schedule.delaysMs, [4_000]);
      schedule.runNext();
      while (opened() < look || schedule.delaysMs.length === 0) {
        assert(stored.recall(key, manifest.digest));
        await nextTurn();
      }
      assert.deepEqual(schedule.delaysMs, [4_000]);
    }
    assert.equal(opened(), 3);
  });

  void it("has its file written again if that is missing", async (test) => {
    const { cache, stored, file } = await setUp(test);
    rmSync(file);
    assert(stored.recall(key, manifest.digest));
    await stored.settle();
    assert.equal(statSync(file).size, manifest.bytes.length);
    const { findings } = await cache.upkeep.scrub({ isRepair: false });
    assert.deepEqual(findings, []);
  });

  void it("has its file read if its verification is a week old, and written again if it is wrong", async (test) => {
    const { cache, clock, stored, file } = await setUp(test);
    const serve = async (): Promise<number | undefined> => {
      assert(stored.recall(key, manifest.digest));
      await stored.settle();
      return (await cache.index.getBlob(manifest.digest))?.verifiedAtMs;
    };
    const isRight = (): boolean => readFileSync(file).equals(manifest.bytes);
    const rot = (): void => writeFileSync(file, manifest.bytes.toReversed());
    clock.advance(WEEK_MS);
    assert.equal(await serve(), clock.nowMs());
    clock.advance(WEEK_MS - 1);
    rot();
    assert.equal(await serve(), clock.nowMs() - WEEK_MS + 1);
    assert.equal(isRight(), false);
    clock.advance(1);
    assert.equal(await serve(), clock.nowMs());
    assert.equal(isRight(), true);
  });

  void it("is not written again after an eviction removed it from memory and its row", async (test) => {
    const { cache, hot, stored, file } = await setUp(test);
    assert(stored.recall(key, manifest.digest));
    assert(await cache.index.dropRoot(key, { kind: "tag", tag: tag("v") }));
    hot.delete(manifest.digest);
    await cache.blobs.remove(manifest.digest);
    await stored.settle();
    assert.equal(existsSync(file), false);
  });

  void it("is still served if the storage accepts no writes", async (test) => {
    const { stored, file, faults } = await setUp(test);
    rmSync(file);
    assert(stored.recall(key, manifest.digest));
    faults.isFull = true;
    await stored.settle();
    assert.equal(existsSync(file), false);
    assert(stored.recall(key, manifest.digest));
    faults.isFull = false;
    await stored.settle();
    assert.equal(existsSync(file), true);
  });
});

void describe("a manifest on a slow disk", () => {
  void it("is answered first, stored once in the background, and a hit afterwards", async (test) => {
    const { cache, stored, faults } = await setUp(test);
    const other = buildImage({ seed: "slow" }).manifest;
    const held = Promise.withResolvers<void>();
    faults.isSlow = held.promise;
    for (let i = 0; i < 2; i += 1) {
      const kept = await stored.keep(key, other.digest, other);
      assert.deepEqual(kept, {
        bytes: other.bytes,
        mediaType: other.mediaType,
        digest: other.digest,
        isStored: false,
      });
    }
    held.resolve();
    await stored.settle();
    assert.equal(faults.puts, 1);
    const row = await cache.index.getLinkedBlob(key, other.digest);
    assert.equal(row?.sizeBytes, other.bytes.length);
    assert(stored.recall(key, other.digest));
  });
});
