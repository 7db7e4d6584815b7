import assert from "node:assert/strict";
import { readdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import type { ImageSummary } from "../../src/images/images.ts";
import { Barrier } from "../support/barrier.ts";
import {
  buildImage,
  seededBlob,
  type TestImage,
} from "../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  type TestMirrorOptions,
  upstreamOf,
} from "../support/mirror-harness.ts";
import { pullImage } from "../support/pull-image.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import type { AfterTest } from "../support/after-test.ts";

const KIB = 1024;
const APP = "library/app";
/** Two layers of 40 KiB of its own, and a shared one. */
const OWN_BYTES = 80 * KIB;
const base = seededBlob("base", 100 * KIB);

function imageOf(name: string): TestImage {
  return buildImage({ seed: name, layers: [base, 40 * KIB, 40 * KIB] });
}

async function setUp(
  test: AfterTest,
  tags: readonly string[],
  options: TestMirrorOptions = {},
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test);
  for (const each of tags) upstream.content.addImage(APP, imageOf(each), each);
  const mirror = await startMirror(test, [upstreamOf(upstream)], options);
  return { upstream, mirror };
}

async function pullAll(
  mirror: TestMirror,
  tags: readonly string[],
): Promise<void> {
  for (const each of tags) {
    mirror.clock.advance(1_000);
    await pullImage(mirror, APP, each);
  }
}

async function listed(mirror: TestMirror): Promise<readonly ImageSummary[]> {
  const { body } = await mirror.operate("GET", "/images?n=1000");
  return (body as { images: readonly ImageSummary[] }).images;
}

async function refs(mirror: TestMirror): Promise<string[]> {
  return (await listed(mirror)).map(({ ref }) => ref.replace(/^.*:/, ""));
}

/** Returns the bytes of the blob files on the disk. */
async function bytesOnDisk(mirror: TestMirror): Promise<number> {
  const folder = dirname(mirror.blobFile(base.digest));
  let bytes = 0;
  for (const name of await readdir(folder)) {
    bytes += (await stat(join(folder, name))).size;
  }
  return bytes;
}

/** Evicts until the limits are met, in addition to the mirror's own evictions. */
async function evict(mirror: TestMirror, body: unknown = {}): Promise<unknown> {
  const answer = await mirror.operate("POST", "/evict", body);
  assert.equal(answer.status, 200);
  return answer.body;
}

function storedBytes(mirror: TestMirror): Promise<number> {
  return mirror.metric("entrepot_storage_bytes");
}

void describe("eviction", () => {
  void it("evicts the least recently pulled images, each as a whole", async (test) => {
    const tags = ["a", "b", "c", "d", "e"];
    const maxBytes = 100 * KIB + 3 * OWN_BYTES + 20 * KIB;
    const { mirror } = await setUp(test, tags, {
      eviction: { maxSize: { bytes: maxBytes } },
    });
    await pullAll(mirror, ["a", "b", "c"]);
    await evict(mirror);
    assert.deepEqual(await refs(mirror), ["a", "b", "c"]);
    mirror.clock.advance(1_000);
    await pullImage(mirror, APP, "a");
    await pullAll(mirror, ["d", "e"]);
    await evict(mirror);
    assert.deepEqual(await refs(mirror), ["a", "d", "e"]);
    assert.ok((await listed(mirror)).every(({ complete }) => complete));
    assert.ok((await storedBytes(mirror)) <= maxBytes);
    assert.equal(await bytesOnDisk(mirror), await storedBytes(mirror));
    assert.equal(
      await mirror.metric('entrepot_evicted_images_total{reason="size"}'),
      2,
    );
    assert.ok(
      (await mirror.metric("entrepot_evicted_bytes_total")) >= 2 * OWN_BYTES,
    );
    assert.equal(await mirror.metric("entrepot_oldest_evicted_age_seconds"), 3);
    assert.equal(await mirror.metric("entrepot_storage_limit_bytes"), maxBytes);
    // A rate needs a first value, of a reason that did not occur as well.
    assert.equal(
      await mirror.metric('entrepot_evicted_images_total{reason="free"}'),
      0,
    );
    const disk = await mirror.metric("entrepot_disk_bytes");
    const free = await mirror.metric("entrepot_disk_free_bytes");
    assert.ok(free > 0 && free < disk);
  });

  void it("leaves every complete image available for an offline pull", async (test) => {
    const tags = ["a", "b", "c", "d"];
    const { mirror, upstream } = await setUp(test, tags, {
      eviction: { maxSize: { bytes: 300 * KIB } },
    });
    await pullAll(mirror, tags);
    await evict(mirror);
    const kept = await refs(mirror);
    assert.ok(kept.length > 0 && kept.length < tags.length);
    await mirror.restart({ offline: true });
    upstream.forgetRequests();
    for (const each of kept) await pullImage(mirror, APP, each);
    assert.equal(upstream.count(), 0);
    const gone = await mirror.get(`/v2/${APP}/manifests/a`);
    assert.equal(gone.status, 404);
  });

  void it("keeps pinned and protected images in a cache that is filled ten times over", async (test) => {
    const tags = Array.from({ length: 40 }, (_, i) => `t${i}`);
    const maxBytes = 100 * KIB + 4 * OWN_BYTES + 30 * KIB;
    const { mirror } = await setUp(test, [...tags, "pinned", "kept"], {
      eviction: {
        maxSize: { bytes: maxBytes },
        keep: ["registry.example/library/app:kept"],
      },
    });
    await pullAll(mirror, ["pinned", "kept"]);
    const pin = await mirror.operate(
      "PUT",
      `/images/registry.example/${APP}:pinned/pin`,
    );
    assert.deepEqual(pin, {
      status: 200,
      body: { ref: `registry.example/${APP}:pinned`, pinned: true },
    });
    await pullAll(mirror, tags);
    await evict(mirror);
    const left = await refs(mirror);
    assert.ok(left.includes("pinned") && left.includes("kept"));
    assert.equal(left.length, 4);
    assert.ok((await listed(mirror)).every(({ complete }) => complete));
    assert.ok((await storedBytes(mirror)) <= maxBytes);
    await mirror.operate(
      "DELETE",
      `/images/registry.example/${APP}:pinned/pin`,
    );
    await evict(mirror, { toBytes: 0 });
    assert.deepEqual(await refs(mirror), ["kept"]);
  });

  void it("does not evict an image while one of its blobs is being read", async (test) => {
    const big = buildImage({ seed: "big", layers: [8 * KIB * KIB] });
    const { mirror, upstream } = await setUp(test, ["a"]);
    upstream.content.addImage(APP, big, "big");
    await pullAll(mirror, ["big", "a"]);
    const [layer] = big.layers;
    assert(layer !== undefined);
    const barrier = new Barrier();
    const reading = mirror.start(`/v2/${APP}/blobs/${layer.digest}`, {
      pause: { atByte: 1, barrier },
    });
    await barrier.arrived();
    await evict(mirror, { toBytes: 0 });
    assert.deepEqual(await refs(mirror), ["big"]);
    barrier.release();
    const whole = await reading.response;
    assert.equal(whole.sha256, layer.digest);
    await evict(mirror, { toBytes: 0 });
    assert.deepEqual(await refs(mirror), []);
    assert.equal(await bytesOnDisk(mirror), 0);
  });

  void it("evicts images that were not pulled for maxIdle, even if there is room", async (test) => {
    const { mirror } = await setUp(test, ["a", "b"], {
      eviction: { maxIdleMs: 3_600_000 },
    });
    await pullAll(mirror, ["a"]);
    mirror.clock.advance(3_600_000);
    await pullAll(mirror, ["b"]);
    await evict(mirror);
    assert.deepEqual(await refs(mirror), ["b"]);
    assert.equal(
      await mirror.metric('entrepot_evicted_images_total{reason="idle"}'),
      1,
    );
  });

  void it("fetches an evicted image again", async (test) => {
    const { mirror, upstream } = await setUp(test, ["a", "b"]);
    await pullAll(mirror, ["a", "b"]);
    const before = await storedBytes(mirror);
    await evict(mirror, { toBytes: 0 });
    assert.equal(await storedBytes(mirror), 0);
    upstream.forgetRequests();
    await pullAll(mirror, ["a", "b"]);
    assert.equal(await storedBytes(mirror), before);
    assert.ok(upstream.count({ kind: "blob" }) > 0);
  });
});
