import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import {
  Collection,
  type CollectionOptions,
} from "../../../src/hosted/collection.ts";
import {
  IndexAwayError,
  IndexError,
} from "../../../src/storage/metadata-index.ts";
import { keyOf } from "../../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { HostedStore, UNLIMITED } from "../../support/hosted-store.ts";
import { ManualSchedule } from "../../support/manual-schedule.ts";

const app = keyOf("local", "team/app");
const web = keyOf("local", "team/web");
const corp = keyOf("corp", "team/app");
const alpine = keyOf("docker.io", "library/alpine");
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

async function setUp(test: AfterTest, over: Partial<CollectionOptions> = {}) {
  const store = await HostedStore.open(test);
  const schedule = new ManualSchedule();
  const create = (): Collection => {
    const collection = new Collection({
      index: store.index,
      evictor: store.evictor(),
      clock: store.clock,
      log: store.log,
      schedule: schedule.start,
      ...over,
    });
    releaseAfter(test, () => collection.stop());
    return collection;
  };
  const collection = create();
  const collect = async (): Promise<readonly [number, number]> => {
    const { blobs, bytes } = await collection.collect({ isDryRun: false });
    return [blobs, bytes];
  };
  return { store, schedule, create, collection, collect };
}

void describe("a collection", () => {
  void it("removes an upload that no manifest named for an hour", async (test) => {
    const { store, collect } = await setUp(test);
    const layer = await store.upload(app, "layer");
    store.clock.advance(HOUR_MS);
    assert.deepEqual(await collect(), [0, 0]);
    store.clock.advance(1);
    assert.deepEqual(await collect(), [1, 1_000]);
    assert.equal(store.has(layer), false);
    assert.equal(
      (await store.metrics.collectedBytes.get()).values[0]?.value,
      1_000,
    );
    assert.equal((await store.index.totals()).blobs, 0);
  });

  void it("keeps a blob for an hour after a client received the answer that it exists", async (test) => {
    const { store, collect } = await setUp(test);
    const layer = await store.upload(app, "layer");
    store.clock.advance(50 * MINUTE_MS);
    assert.ok(
      await store.index.claimHostedBlob(app, layer, store.clock.nowMs()),
    );
    store.clock.advance(50 * MINUTE_MS);
    assert.deepEqual(await collect(), [0, 0]);
    await store.putManifest(app, "manifest", { blobs: [layer] });
    store.clock.advance(24 * HOUR_MS);
    assert.deepEqual(await collect(), [0, 0]);
    assert.equal(store.files(), 2);
  });

  void it("keeps a mounted blob for an hour, and its source as long as it is needed", async (test) => {
    const { store, collect } = await setUp(test);
    const layer = await store.mirror(alpine, "latest");
    assert.equal(
      await store.index.mountHostedBlob(
        app,
        layer,
        alpine,
        store.clock.nowMs(),
        UNLIMITED.quota,
      ),
      "stored",
    );
    await store.index.dropRoot(alpine, { kind: "tag", tag: "latest" as never });
    store.clock.advance(HOUR_MS);
    // The manifest of the mirrored image only.
    assert.deepEqual(await collect(), [1, 100]);
    assert.equal(store.has(layer), true);
    store.clock.advance(1);
    assert.deepEqual(await collect(), [1, 1_000]);
  });

  void it("removes the blobs of a deleted image immediately, except those that others need", async (test) => {
    const { store, collect } = await setUp(test);
    const [shared, own] = [
      await store.upload(app, "shared"),
      await store.upload(app, "own"),
    ];
    const first = await store.putManifest(app, "first", {
      blobs: [shared, own],
    });
    const second = await store.putManifest(app, "second", { blobs: [shared] });
    await store.remove(app, first);
    assert.deepEqual(await collect(), [2, 1_100]);
    assert.equal(store.has(own), false);
    assert.equal(store.has(shared), true);
    await store.remove(app, second);
    assert.deepEqual(await collect(), [2, 1_100]);
    assert.equal(store.files(), 0);
  });

  void it("keeps a blob that another repository, another registry or a mirrored image needs", async (test) => {
    const { store, collect } = await setUp(test);
    const layer = await store.mirror(alpine, "latest");
    for (const key of [app, web, corp]) {
      await store.index.mountHostedBlob(
        key,
        layer,
        alpine,
        store.clock.nowMs(),
        UNLIMITED.quota,
      );
      await store.putManifest(key, `of ${key.upstream} ${key.repository}`, {
        blobs: [layer],
      });
    }
    store.clock.advance(2 * HOUR_MS);
    for (const key of [app, web, corp]) {
      const [manifest] = await store.index.listUntaggedManifests(
        key,
        1,
        undefined,
      );
      assert.ok(manifest);
      await store.remove(key, manifest.digest);
      assert.deepEqual(await collect(), [1, 100]);
      assert.equal(store.has(layer), true);
    }
    assert.equal(store.files(), 2);
  });

  void it("knows the claims after a restart", async (test) => {
    const { store, create } = await setUp(test);
    const layer = await store.upload(app, "layer");
    store.clock.advance(30 * MINUTE_MS);
    await store.reopen();
    const collection = create();
    store.clock.advance(30 * MINUTE_MS);
    assert.equal((await collection.collect({ isDryRun: false })).blobs, 0);
    store.clock.advance(1);
    assert.equal((await collection.collect({ isDryRun: false })).blobs, 1);
    assert.equal(store.has(layer), false);
  });

  void it("reports what it would remove, and changes nothing, in a dry run", async (test) => {
    const { store, collection, collect } = await setUp(test);
    await store.upload(app, "claimed");
    const own = await store.upload(app, "own");
    const manifest = await store.putManifest(app, "manifest", { blobs: [own] });
    await store.remove(app, manifest);
    for (let times = 0; times < 2; times += 1) {
      assert.deepEqual(await collection.collect({ isDryRun: true }), {
        deleted: [],
        deletions: 0,
        blobs: 2,
        bytes: 1_100,
      });
    }
    assert.equal(store.files(), 3);
    assert.deepEqual(await collect(), [2, 1_100]);
    assert.equal(store.files(), 1);
  });

  void it("keeps every claim for an hour after the clock was set forward", async (test) => {
    const { store, collect } = await setUp(test);
    await store.upload(app, "layer");
    store.clock.setWall(store.clock.nowMs() + 10 * 365 * 24 * HOUR_MS);
    assert.deepEqual(await collect(), [0, 0]);
    store.clock.advance(HOUR_MS + 1);
    assert.deepEqual(await collect(), [1, 1_000]);
  });

  void it("removes thousands of links in steps", async (test) => {
    const { store, collect } = await setUp(test);
    const blobs = [];
    for (let number = 0; number < 300; number += 1)
      blobs.push(await store.upload(app, `layer ${number}`, 1_000 + number));
    const manifest = await store.putManifest(app, "manifest", { blobs });
    await store.remove(app, manifest);
    assert.equal((await collect())[0], 301);
    assert.equal(store.files(), 0);
    assert.deepEqual(await store.index.listHostedRegistries(), []);
  });

  void it("does not remove a blob that is being read", async (test) => {
    const { store, collect } = await setUp(test);
    const layer = await store.upload(app, "layer");
    const manifest = await store.putManifest(app, "manifest", {
      blobs: [layer],
    });
    const reader = await store.blobs.open(layer, 1_000);
    await store.remove(app, manifest);
    assert.deepEqual(await collect(), [1, 100]);
    assert.equal(store.has(layer), true);
    await reader?.close();
    assert.deepEqual(await collect(), [1, 1_000]);
  });
});

void describe("the background collection", () => {
  void it("runs at its start, every 20 s, and 26 s after a notification", async (test) => {
    const { store, collection, schedule } = await setUp(test);
    // Waits for the pass in progress.
    const settled = () => collection.collect({ isDryRun: false });
    collection.notify();
    assert.deepEqual(schedule.delaysMs, []);
    collection.start();
    await settled();
    assert.deepEqual(schedule.delaysMs, [20_000]);
    for (let times = 0; times < 9; times += 1) collection.notify();
    assert.deepEqual(schedule.delaysMs, [26_000]);
    schedule.runNext();
    collection.notify();
    await settled();
    assert.deepEqual(schedule.delaysMs, [26_000]);
    schedule.runNext();
    await settled();
    assert.deepEqual(schedule.delaysMs, [20_000]);
    await collection.stop();
    collection.notify();
    assert.deepEqual(schedule.delaysMs, []);
    assert.equal(store.files(), 0);
  });

  void it("keeps what a deleted manifest named for 25 s, for another push that may name it", async (test) => {
    const { store, collection, schedule } = await setUp(test);
    const pass = async () => {
      schedule.runNext();
      // Joins the pass, and changes nothing.
      await collection.collect({ isDryRun: true });
      while (schedule.delaysMs.length === 0) await nextTurn();
    };
    const layer = await store.upload(app, "layer");
    const claim = () =>
      store.index.claimHostedBlob(app, layer, store.clock.nowMs());
    collection.start();
    while (schedule.delaysMs.length === 0) await nextTurn();
    assert.ok(await claim());
    const first = await store.putManifest(app, "first", { blobs: [layer] });
    await store.remove(app, first);
    store.clock.advance(25_000);
    await pass();
    assert.equal(store.has(first), false);
    assert.equal(store.has(layer), true);
    const second = await store.putManifest(app, "second", { blobs: [layer] });
    await store.remove(app, second);
    store.clock.advance(25_001);
    await pass();
    assert.equal(store.has(layer), false);
    assert.equal(store.files(), 0);
  });

  for (const [name, error, warnings] of [
    [
      "is retried after a failure, which the log has",
      new IndexError("locked"),
      ["the collection of hosted blobs failed and is retried"],
    ],
    ["waits silently while the root is absent", new IndexAwayError("x"), []],
  ] as const) {
    void it(name, async (test) => {
      const { store, collection, schedule } = await setUp(test, {
        index: {
          dropUnneededLinks: () => Promise.reject(error),
          previewCollection: () => Promise.reject(error),
        },
      });
      collection.start();
      await assert.rejects(collection.collect({ isDryRun: false }), error);
      assert.deepEqual(schedule.delaysMs, [20_000]);
      assert.deepEqual(store.warnings, warnings);
    });
  }
});

void describe("the evictor of a store with more hosted bytes than maxSize", () => {
  void it("evicts mirrored images only, and logs once that nothing is left to evict", async (test) => {
    const { store } = await setUp(test);
    const layer = await store.upload(app, "hosted", 5_000);
    await store.putManifest(app, "manifest", { tags: ["v1"], blobs: [layer] });
    await store.mirror(alpine, "a");
    await store.mirror(alpine, "b");
    store.clock.advance(HOUR_MS);
    const evictor = store.evictor({ maxSize: { bytes: 2_000 } });
    evictor.start();
    assert.equal(await evictor.makeRoom(1), false);
    assert.deepEqual(await store.index.listTags(alpine, 9, undefined), []);
    for (let times = 0; times < 3; times += 1) {
      evictor.notifyStored();
      store.schedule.runNext();
      assert.equal(await evictor.makeRoom(1), false);
    }
    assert.equal(store.has(layer), true);
    assert.equal(store.files(), 2);
    assert.deepEqual(store.warnings, [
      "a storage limit is exceeded and no image can be evicted",
    ]);
    assert.deepEqual(await evictor.evict({ toBytes: 0, isDryRun: false }), []);
  });

  void it("frees only what no hosted repository needs", async (test) => {
    const { store } = await setUp(test);
    const layer = await store.mirror(alpine, "a");
    await store.index.mountHostedBlob(
      app,
      layer,
      alpine,
      store.clock.nowMs(),
      UNLIMITED.quota,
    );
    store.clock.advance(HOUR_MS);
    const evictor = store.evictor({ maxSize: { bytes: 10 } });
    const [victim, ...others] = await evictor.evict({ isDryRun: true });
    assert.deepEqual(others, []);
    assert.equal(victim?.freedBytes, 100);
    await evictor.evict({ isDryRun: false });
    assert.equal(store.has(layer), true);
    assert.ok(await store.index.getLinkedBlob(app, layer));
  });
});
