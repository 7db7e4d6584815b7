import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { describe, it, type TestContext } from "node:test";
import type { ImageSummary } from "../../src/images/images.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import {
  buildImage,
  seededBlob,
  type TestImage,
} from "../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../support/mirror-harness.ts";
import { seededRandom, zipf } from "../support/random.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { chooseSeed } from "../support/seeded-choice.ts";
import { soakFactor } from "../support/soak.ts";

const GIB = 1024 ** 3;
/** Scales all sizes: a tenth of the bytes in a tenth of the cache. */
const FACTOR = soakFactor(0.1);
const MAX_BYTES = 2 * GIB * FACTOR;
/** 50 GiB in a cache of 2 GiB. */
const PULLED_BYTES = 25 * MAX_BYTES;
const CLIENTS = 32;
/** With 32 clients, a quarter of the cache is in flight. */
const IMAGE_BYTES = MAX_BYTES / 128;
const IMAGES = 400;
const IMAGES_PER_BASE = 20;
const APP = "library/app";
const SAMPLE_EVERY_MS = 100;
/** Times are compared only if the test has the machine for itself. */
const isJudged = FACTOR === 1;

function tagOf(rank: number): string {
  return `v${rank}`;
}

function images(): readonly TestImage[] {
  return Array.from({ length: IMAGES }, (_, rank) => {
    const layer = Math.floor(IMAGE_BYTES / 4);
    const base = seededBlob(`base ${rank % IMAGES_PER_BASE}`, layer);
    return buildImage({
      seed: `image ${rank}`,
      layers: [base, layer, layer, layer],
    });
  });
}

interface Churn {
  /** The duration of each hit to its last byte, in milliseconds. */
  readonly hitsMs: number[];
  readonly pulledBytes: number;
  readonly mostBytes: number;
}

/** Runs clients that pull until they have received this many bytes. */
async function churn(
  mirror: TestMirror,
  all: readonly TestImage[],
  { pulledBytes, seed }: { pulledBytes: number; seed: number },
): Promise<Churn> {
  const draw = zipf(IMAGES, 1, seededRandom(seed));
  const hitsMs: number[] = [];
  const came = { bytes: 0 };
  const get = async (path: string, digest: string): Promise<void> => {
    const answer = await mirror.start(path, { body: "hash" }).response;
    assert.deepEqual(
      [answer.status, answer.end, answer.sha256],
      [200, "complete", digest],
      path,
    );
    came.bytes += answer.bodyBytes;
    if (answer.headers["cache-status"]?.startsWith("entrepot; hit") === true) {
      hitsMs.push(answer.durationMs);
    }
  };
  const client = async (): Promise<void> => {
    while (came.bytes < pulledBytes) {
      const rank = draw();
      const image = all[rank];
      assert(image !== undefined);
      await get(`/v2/${APP}/manifests/${tagOf(rank)}`, image.manifest.digest);
      for (const { digest } of image.blobs) {
        await get(`/v2/${APP}/blobs/${digest}`, digest);
      }
    }
  };
  let mostBytes = 0;
  const ended = new AbortController();
  const watch = async (): Promise<void> => {
    while (!ended.signal.aborted) {
      mostBytes = Math.max(
        mostBytes,
        await mirror.metric("entrepot_storage_bytes"),
      );
      await delay(SAMPLE_EVERY_MS);
    }
  };
  const watching = watch();
  try {
    await Promise.all(Array.from({ length: CLIENTS }, client));
  } finally {
    ended.abort();
    await watching;
  }
  await mirror.settled();
  return { hitsMs, pulledBytes: came.bytes, mostBytes };
}

function p99(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length * 0.99)] ?? 0;
}

async function setUp(
  test: TestContext,
  all: readonly TestImage[],
  maxBytes: number,
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test);
  for (const [rank, image] of all.entries()) {
    upstream.content.addImage(APP, image, tagOf(rank));
  }
  const mirror = await startMirror(
    test,
    [upstreamOf(upstream, { concurrency: 64 })],
    { clock: systemClock, eviction: { maxSize: { bytes: maxBytes } } },
  );
  return { upstream, mirror };
}

void describe("a small cache under many clients", () => {
  void it("stays within maxSize, and keeps every complete image complete", async (test) => {
    const seed = chooseSeed();
    test.diagnostic(`seed ${seed}`);
    const all = images();
    const { upstream, mirror } = await setUp(test, all, MAX_BYTES);
    const { hitsMs, pulledBytes, mostBytes } = await churn(mirror, all, {
      pulledBytes: PULLED_BYTES,
      seed,
    });
    const evictedBytes = await mirror.metric("entrepot_evicted_bytes_total");
    const evicted = await mirror.metric(
      'entrepot_evicted_images_total{reason="size"}',
    );
    test.diagnostic(
      `${(pulledBytes / GIB).toFixed(2)} GiB pulled, ${hitsMs.length} hits, ` +
        `${evicted} images of ${(evictedBytes / GIB).toFixed(2)} GiB evicted, ` +
        `at most ${((mostBytes / MAX_BYTES) * 100).toFixed(1)} % of maxSize stored`,
    );
    assert.ok(evictedBytes > MAX_BYTES / 8, "the cache was turned over");
    assert.ok(
      mostBytes <= MAX_BYTES + CLIENTS * IMAGE_BYTES,
      `${mostBytes} stored`,
    );
    await mirror.operate("POST", "/evict", {});
    assert.ok(
      (await mirror.metric("entrepot_storage_bytes")) <= MAX_BYTES,
      "within the limit once nothing is in flight",
    );

    const { body } = await mirror.operate("GET", "/images?n=1000");
    const complete = (body as { images: ImageSummary[] }).images.filter(
      (image) => image.complete,
    );
    assert.ok(complete.length > 20, `${complete.length} complete`);
    await mirror.restart({ offline: true });
    upstream.forgetRequests();
    for (const { ref } of complete) {
      const tag = /:(v\d+)$/.exec(ref)?.[1];
      if (tag === undefined) continue;
      const image = all[Number(tag.slice(1))];
      assert(image !== undefined);
      const manifest = await mirror.get(`/v2/${APP}/manifests/${tag}`);
      assert.equal(manifest.sha256, image.manifest.digest, ref);
      for (const { digest } of image.blobs) {
        const answer = await mirror.start(`/v2/${APP}/blobs/${digest}`, {
          body: "hash",
        }).response;
        assert.equal(answer.sha256, digest, `${ref}: ${answer.status}`);
      }
    }
    assert.equal(upstream.count(), 0);
    test.diagnostic(`${complete.length} complete images pulled offline`);
  });

  void it("answers hits as fast during evictions as without them", async (test) => {
    const all = images();
    const maxBytes = MAX_BYTES / 2;
    const seed = chooseSeed();
    test.diagnostic(`seed ${seed}`);
    // Sufficient for ten thousand hits of each kind.
    const part = { pulledBytes: PULLED_BYTES / 6, seed };
    const quiet = await setUp(test, all, Number.MAX_SAFE_INTEGER);
    const before = p99((await churn(quiet.mirror, all, part)).hitsMs);
    await quiet.mirror.close();
    const busy = await setUp(test, all, maxBytes);
    const during = p99((await churn(busy.mirror, all, part)).hitsMs);
    test.diagnostic(
      `p99 of hits: ${before.toFixed(1)} ms without, ${during.toFixed(1)} ms with eviction`,
    );
    assert.ok(
      (await busy.mirror.metric("entrepot_evicted_bytes_total")) > 0,
      "something was evicted",
    );
    if (isJudged) assert.ok(during <= 2 * before, `${during} of ${before}`);
  });
});
