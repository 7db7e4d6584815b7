import assert from "node:assert/strict";
import { buffer } from "node:stream/consumers";
import { describe, it } from "node:test";
import type { AfterTest } from "../../support/after-test.ts";
import { Barrier } from "../../support/barrier.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { buildImage, seededBlob } from "../../support/image-builder.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import {
  ALPINE,
  repositoryName,
  SIGNAL,
  startUpstreamClient,
  TAG,
  upstreamErrorOf,
} from "../../support/upstream-harness.ts";

const IMAGE = buildImage({ seed: "probing", layers: [300_000] });
const LAYER = IMAGE.blobs[1] ?? assert.fail("no layer");

async function startRegistry(
  t: AfterTest,
  options: Parameters<typeof ScriptedUpstream.start>[1] = {},
): Promise<ScriptedUpstream> {
  const upstream = await ScriptedUpstream.start(t, options);
  upstream.content.addImage(ALPINE, IMAGE, "1");
  return upstream;
}

void describe("a failed endpoint", () => {
  void it("is probed in the background while the next one answers, and is used again when it recovers", async (t) => {
    const clock = new FakeClock();
    const first = await startRegistry(t);
    const second = await startRegistry(t);
    const { client, observer } = startUpstreamClient(
      t,
      [first.origin, second.origin],
      // A request that waited for the black hole would be answered last.
      { clock, connectTimeoutMs: 2_000, headersTimeoutMs: 18_000 },
    );
    await first.stop();
    await client.getManifest(ALPINE, TAG, SIGNAL);
    assert.deepEqual(observer.endpoints, [[first.origin, false]]);
    await first.restart();
    const barrier = new Barrier();
    first.when({}, { hold: { at: "headers", barrier } });
    clock.advance(5_000);
    for (let round = 0; round < 3; round++) {
      await client.getManifest(ALPINE, TAG, SIGNAL);
    }
    // One probe at a time; it sends the request of the client.
    await first.arrived(1);
    assert.equal(first.count(), 1);
    assert.equal(first.requests()[0]?.kind, "manifest");
    assert.equal(second.count({ kind: "manifest" }), 4);
    assert.equal(first.requests()[0]?.isEnded, false);
    const { endpoint, body } = await client.openBlob(ALPINE, LAYER.digest, {
      signal: SIGNAL,
    });
    assert.equal(endpoint, second.origin);
    await buffer(body);
    barrier.release();
    await first.ended();
    first.clearRules();
    while (client.status().endpoints[0]?.breaker !== "closed") {
      await client.headManifest(ALPINE, TAG, SIGNAL);
    }
    first.forgetRequests();
    await client.getManifest(ALPINE, TAG, SIGNAL);
    assert.equal(first.count(), 1);
  });

  void it("has a late body destroyed if the probe was a blob", async (t) => {
    const clock = new FakeClock();
    const first = await startRegistry(t);
    const second = await startRegistry(t);
    const { client } = startUpstreamClient(t, [first.origin, second.origin], {
      clock,
    });
    await first.stop();
    await client.headManifest(ALPINE, TAG, SIGNAL);
    await first.restart();
    clock.advance(5_000);
    first.when({ kind: "blob" }, { stallAt: 1_000 });
    const { body, endpoint } = await client.openBlob(ALPINE, LAYER.digest, {
      signal: SIGNAL,
    });
    assert.equal(endpoint, second.origin);
    assert.equal((await buffer(body)).length, LAYER.sizeBytes);
    await first.ended({ kind: "blob" }, 1);
    assert.equal(first.bytesSent({ kind: "blob" }), 1_000);
  });

  void it("that is the only one costs one time-out; later callers get an error within a second", async (t) => {
    const clock = new FakeClock();
    const upstream = await startRegistry(t);
    const { client } = startUpstreamClient(t, [upstream.origin], {
      clock,
      connectTimeoutMs: 300,
      headersTimeoutMs: 18_000,
    });
    const ask = () => upstreamErrorOf(client.getManifest(ALPINE, TAG, SIGNAL));
    await upstream.stop();
    assert.equal((await ask()).kind, "unreachable");
    await upstream.restart();
    const barrier = new Barrier();
    upstream.when({}, { hold: { at: "headers", barrier } });
    clock.advance(5_000);
    const late = await ask();
    assert.equal(late.kind, "breaker-open");
    assert.equal(late.isLocal, false);
    assert.ok((late.retryAfterMs ?? 0) >= 1_000);
    assert.equal(upstream.count(), 1);
    assert.equal(client.status().endpoints[0]?.breaker, "half-open");
    // The probe continues in the background, no caller waits for it, and its answer counts.
    const other = await ask();
    assert.deepEqual([other.kind, other.isLocal], ["breaker-open", true]);
    barrier.release();
    await upstream.ended();
    while (client.isDown()) await new Promise(setImmediate);
    await client.getManifest(ALPINE, TAG, SIGNAL);
    assert.equal(upstream.count(), 2);
  });
});

void describe("failed storage of a redirect", () => {
  void it("delays a request by at most a second when it is probed", async (t) => {
    const clock = new FakeClock();
    const upstream = await startRegistry(t, { redirectBlobs: {} });
    const { client } = startUpstreamClient(t, [upstream.origin], {
      clock,
      headersTimeoutMs: 18_000,
    });
    const open = () =>
      client.openBlob(ALPINE, LAYER.digest, { signal: SIGNAL });
    await upstream.cdn?.stop();
    assert.equal((await upstreamErrorOf(open())).kind, "unreachable");
    await upstream.cdn?.start();
    const barrier = new Barrier();
    upstream.when(
      { listener: "cdn" },
      { hold: { at: "headers", barrier } },
      { times: 1 },
    );
    clock.advance(5_000);
    const late = await upstreamErrorOf(open());
    assert.equal(late.kind, "breaker-open");
    assert.equal(client.isDown(), false);
    barrier.release();
    await upstream.ended({ listener: "cdn" });
    for (;;) {
      const result = await open().catch(() => undefined);
      if (result === undefined) continue;
      assert.equal((await buffer(result.body)).length, LAYER.sizeBytes);
      break;
    }
  });
});

void describe("storage of a redirect that fails for one blob", () => {
  for (const status of [503, 429]) {
    void it(`with ${status} and Retry-After still serves other blobs, and is not requested for that one`, async (t) => {
      const upstream = await startRegistry(t, { redirectBlobs: {} });
      const { client } = startUpstreamClient(t, [upstream.origin], {
        clock: new FakeClock(),
      });
      upstream.when(
        { listener: "cdn", reference: LAYER.digest },
        { status, headers: { "retry-after": "60" } },
      );
      const open = (digest: typeof LAYER.digest) =>
        client.openBlob(ALPINE, digest, { signal: SIGNAL });
      for (let round = 0; round < 5; round++) {
        const error = await upstreamErrorOf(open(LAYER.digest));
        assert.equal(error.isLocal, round > 0);
        const { body } = await open(IMAGE.config.digest);
        await buffer(body);
      }
      assert.equal(
        upstream.count({ listener: "cdn", reference: LAYER.digest }),
        1,
      );
    });
  }

  void it("with 503 and Retry-After rests after three blobs in a row", async (t) => {
    const clock = new FakeClock();
    const upstream = await startRegistry(t, { redirectBlobs: {} });
    const blobs = [1, 2, 3, 4].map((at) => seededBlob(`stored ${at}`, 1_000));
    for (const blob of blobs) upstream.content.addBlob(ALPINE, blob);
    const { client } = startUpstreamClient(t, [upstream.origin], { clock });
    upstream.when(
      { listener: "cdn" },
      { status: 503, headers: { "retry-after": "60" } },
    );
    for (const { digest } of blobs) {
      await upstreamErrorOf(
        client.openBlob(ALPINE, digest, { signal: SIGNAL }),
      );
    }
    assert.equal(upstream.count({ listener: "cdn" }), 3);
    // The endpoint itself has no failure.
    assert.equal(client.isDown(), false);
  });
});

void describe("slow lists", () => {
  void it("delay no manifest, token or blob, and a queued list is not a failure", async (t) => {
    const upstream = await startRegistry(t, { auth: { scheme: "bearer" } });
    const { client } = startUpstreamClient(t, [upstream.origin], {
      headersTimeoutMs: 18_000,
    });
    const barrier = new Barrier();
    upstream.when({ kind: "tags" }, { hold: { at: "headers", barrier } });
    const leaving = new AbortController();
    const lists = Array.from({ length: 40 }, (_, at) =>
      upstreamErrorOf(
        client.listTags(repositoryName(`r${at}`), leaving.signal),
      ),
    );
    await barrier.arrived(8);
    await client.getManifest(ALPINE, TAG, SIGNAL);
    const { body } = await client.openBlob(ALPINE, LAYER.digest, {
      signal: SIGNAL,
    });
    await buffer(body);
    leaving.abort();
    for (const error of await Promise.all(lists)) {
      assert.equal(error.kind, "timeout");
    }
    barrier.release();
    upstream.clearRules();
    // Neither sent nor queued requests count as failures.
    await client.listTags(ALPINE, SIGNAL);
    assert.equal(client.status().endpoints[0]?.lastError, undefined);
  });
});

void describe("admission", () => {
  void it("refuses requests that find the queue full, immediately and with Retry-After", async (t) => {
    const upstream = await startRegistry(t);
    const barrier = new Barrier();
    upstream.when({ kind: "blob" }, { hold: { at: "headers", barrier } });
    const { client } = startUpstreamClient(t, [upstream.origin], {
      concurrency: 1,
      headersTimeoutMs: 18_000,
    });
    const leaving = new AbortController();
    const waiting = Array.from({ length: 1_001 }, () =>
      upstreamErrorOf(
        client.openBlob(ALPINE, LAYER.digest, { signal: leaving.signal }),
      ),
    );
    await barrier.arrived(1);
    const refused = await upstreamErrorOf(
      client.openBlob(ALPINE, LAYER.digest, { signal: SIGNAL }),
    );
    assert.deepEqual(
      [refused.kind, refused.retryAfterMs, refused.isLocal],
      ["overloaded", 1_000, true],
    );
    // Manifests have slots of their own.
    await client.getManifest(ALPINE, TAG, SIGNAL);
    assert.equal(client.isDown(), false);
    leaving.abort();
    await Promise.all(waiting);
    assert.equal(upstream.count({ kind: "blob" }), 1);
  });
});

void describe("bandwidth", () => {
  void it("is shared by all bodies of an upstream, and no byte is lost", async (t) => {
    const upstream = await startRegistry(t);
    const { client } = startUpstreamClient(t, [upstream.origin], {
      bandwidthBytesPerSecond: 1_000_000,
    });
    const startMs = performance.now();
    const bodies = await Promise.all(
      Array.from({ length: 3 }, async () => {
        const { body } = await client.openBlob(ALPINE, LAYER.digest, {
          signal: SIGNAL,
        });
        return buffer(body);
      }),
    );
    const tookMs = performance.now() - startMs;
    assert.deepEqual(
      bodies.map(({ length }) => length),
      [300_000, 300_000, 300_000],
    );
    // A lower bound holds on any machine: the last chunks and a burst are not delayed.
    assert.ok(tookMs >= 500, `${tookMs} ms`);
  });
});
