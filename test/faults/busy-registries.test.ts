import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { ChildMirror } from "../support/child-mirror.ts";
import { seededBlob, type TestBlob } from "../support/image-builder.ts";
import { type RawResponse, rawRequest } from "../support/raw-client.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { soakFactor } from "../support/soak.ts";
import type { AfterTest } from "../support/temp-dir.ts";

/*
 * Issue 10, items 1 and 4: a mirror with the default configuration, and two registries of which one
 * is slow, busy, stalled or sends wrong bytes.
 */

const MIB = 1024 * 1024;
const GET = { kind: "blob", method: "GET" } as const;
/** Longer than the time limit for a response head; 40 s in a full run. */
const SLOW_SECONDS = Math.max(20, 40 * soakFactor(0.5));
const LARGE_BYTES = 8 * MIB * soakFactor(1 / 4);
/** Far below the patience of an engine, far above the time on a loaded machine. */
const PROMPT_MS = 10_000;

function blobsOf(seed: string, count: number, sizeBytes: number): TestBlob[] {
  return Array.from({ length: count }, (_, i) =>
    seededBlob(`busy/${seed}/${i}`, sizeBytes),
  );
}

async function registry(
  test: AfterTest,
  blobs: readonly TestBlob[],
): Promise<ScriptedUpstream> {
  const upstream = await ScriptedUpstream.start(test);
  for (const blob of blobs) upstream.content.addBlob("team/app", blob);
  return upstream;
}

/** Starts a mirror of `one.example` and `two.example`. */
function mirrorOf(
  test: AfterTest,
  one: ScriptedUpstream,
  two: ScriptedUpstream,
  config: Readonly<Record<string, unknown>> = {},
): Promise<ChildMirror> {
  return ChildMirror.start(test, {
    config: {
      upstreams: {
        "one.example": { default: true, endpoints: [one.origin] },
        "two.example": { endpoints: [two.origin] },
      },
      ...config,
    },
  });
}

interface Pulled {
  readonly response: RawResponse;
  readonly durationMs: number;
}

async function pull(
  mirror: ChildMirror,
  registryName: "one" | "two",
  blob: TestBlob,
  headers: Readonly<Record<string, string>> = {},
): Promise<Pulled> {
  const startedMs = performance.now();
  const response = await rawRequest({
    port: mirror.port,
    path: `/v2/${registryName}.example/team/app/blobs/${blob.digest}`,
    body: "hash",
    timeoutMs: 240_000,
    headers,
  });
  return { response, durationMs: performance.now() - startedMs };
}

function countWhole(
  pulled: readonly Pulled[],
  blobs: readonly TestBlob[],
): number {
  return pulled.filter(
    ({ response }, i) =>
      response.status === 200 && response.sha256 === blobs[i]?.digest,
  ).length;
}

void describe(
  "busy, stalled and lying registries",
  { concurrency: true },
  () => {
    void it("serves 60 blobs of a slow registry to 60 clients", async (test) => {
      const blobs = blobsOf("slow", 60, 200_000);
      const one = await registry(test, blobs);
      one.when(GET, { bytesPerSecond: 200_000 / SLOW_SECONDS });
      const mirror = await mirrorOf(test, one, await registry(test, []));
      const pulled = await Promise.all(
        blobs.map((blob) => pull(mirror, "one", blob)),
      );
      const statuses = new Set(pulled.map(({ response }) => response.status));
      const whole = countWhole(pulled, blobs);
      test.diagnostic(
        `${whole} of 60 whole, ${SLOW_SECONDS} s each, statuses ${[...statuses].join(" ")}`,
      );
      assert.equal(whole, 60);
    });

    void it("serves a registry while 64 downloads of another one trickle", async (test) => {
      const trickling = blobsOf("trickle", 64, 300_000);
      const healthy = blobsOf("healthy", 40, 300_000);
      const one = await registry(test, trickling);
      const two = await registry(test, healthy);
      one.when(GET, { bytesPerSecond: 500 });
      const mirror = await mirrorOf(test, one, two);
      const abandoned = trickling.map((blob) =>
        rawRequest({
          port: mirror.port,
          path: `/v2/one.example/team/app/blobs/${blob.digest}`,
          leave: { atByte: 5_000, by: "fin" },
          timeoutMs: 240_000,
        }),
      );
      const running = 'entrepot_fills_in_progress{upstream="one.example"} 64';
      while (!(await mirror.metrics()).includes(running)) await delay(50);
      const pulled = await Promise.all(
        healthy.map((blob) => pull(mirror, "two", blob)),
      );
      const longestMs = Math.max(...pulled.map(({ durationMs }) => durationMs));
      const whole = countWhole(pulled, healthy);
      test.diagnostic(
        `${whole} of 40 whole, the last after ${longestMs | 0} ms`,
      );
      assert.equal(whole, 40);
      assert.ok(longestMs < PROMPT_MS);
      await Promise.all(abandoned);
    });

    void it("serves a registry's blobs while another one stalls or sends wrong bytes for the same digests", async (test) => {
      const [stalled, lied] = blobsOf("shared", 2, MIB);
      assert.ok(stalled && lied);
      const one = await registry(test, [stalled, lied]);
      const two = await registry(test, [stalled, lied]);
      two.when({ reference: stalled.digest }, { stallAt: MIB / 2 });
      two.when({ reference: lied.digest }, { flip: "middle" });
      const mirror = await mirrorOf(test, one, two);
      const held = pull(mirror, "two", stalled);
      await two.sent(MIB / 2, { reference: stalled.digest });
      const wrong = await pull(mirror, "two", lied);
      assert.notEqual(wrong.response.end, "complete");
      for (const blob of [stalled, lied]) {
        const range = await pull(mirror, "one", blob, { Range: "bytes=0-99" });
        assert.equal(range.response.status, 206);
        const whole = await pull(mirror, "one", blob);
        assert.equal(whole.response.sha256, blob.digest);
        assert.ok(whole.durationMs < PROMPT_MS, `${whole.durationMs | 0} ms`);
        assert.equal(one.count({ ...GET, reference: blob.digest }), 1);
      }
      two.clearRules();
      // The stalled download is resumed from its own upstream.
      assert.equal((await held).response.sha256, stalled.digest);
      assert.equal(
        (await pull(mirror, "two", lied)).response.sha256,
        lied.digest,
      );
    });

    void it("answers 503 in time if limits.fills delays downloads, and opens no breaker", async (test) => {
      const blobs = blobsOf("limited", 3, 200_000);
      const [first, second, other] = blobs;
      assert.ok(first && second && other);
      const one = await registry(test, [first, second]);
      const two = await registry(test, [other]);
      one.when(GET, { bytesPerSecond: 200_000 / 20 }, { times: 1 });
      const mirror = await mirrorOf(test, one, two, { limits: { fills: 1 } });
      const running = pull(mirror, "one", first);
      await one.arrived(1, GET);
      const refused = await Promise.all([
        pull(mirror, "one", second),
        pull(mirror, "two", other),
      ]);
      for (const { response, durationMs } of refused) {
        assert.equal(response.status, 503);
        assert.equal(response.headers["retry-after"], "2");
        assert.ok(durationMs < 18_500, `${durationMs | 0} ms`);
      }
      // They kept their places in the queue, and the upstreams alternate.
      const again = await Promise.all([
        pull(mirror, "one", second),
        pull(mirror, "two", other),
      ]);
      assert.equal(countWhole(again, [second, other]), 2);
      assert.equal((await running).response.sha256, first.digest);
      assert.deepEqual([one.count(GET), two.count(GET)], [2, 1]);
      const metrics = await mirror.metrics();
      assert.doesNotMatch(metrics, /entrepot_upstream_up\{.*\} 0/);
    });
  },
);

void describe("200 clients", () => {
  void it("receive 200 different cold blobs at 200 KB/s each, within 500 MB of memory", async (test) => {
    const blobs = blobsOf("large", 200, LARGE_BYTES);
    const one = await registry(test, blobs);
    one.when(GET, { bytesPerSecond: 200_000 });
    const mirror = await mirrorOf(test, one, await registry(test, []));
    const pulled = await Promise.all(
      blobs.map((blob) => pull(mirror, "one", blob)),
    );
    const whole = countWhole(pulled, blobs);
    const peakBytes = mirror.child.peakRssBytes();
    test.diagnostic(
      `${whole} of 200 whole, ${LARGE_BYTES / MIB} MiB each, peak ${(peakBytes / 1e6) | 0} MB`,
    );
    assert.equal(whole, 200);
    assert.ok(peakBytes < 500e6, `${peakBytes}`);
  });
});
