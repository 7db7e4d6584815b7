import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { AfterTest } from "../../support/after-test.ts";
import { Barrier } from "../../support/barrier.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { buildImage } from "../../support/image-builder.ts";
import { ManualSchedule } from "../../support/manual-schedule.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import {
  ALPINE,
  SIGNAL,
  startUpstreamClient,
  TAG,
  type TestClient,
  tagReference,
  upstreamErrorOf,
} from "../../support/upstream-harness.ts";

const IMAGE = buildImage({ seed: "background", layers: [5_000] });
const HOUR_MS = 3_600_000;

interface Scene extends TestClient {
  readonly upstream: ScriptedUpstream;
  readonly clock: FakeClock;
  readonly schedule: ManualSchedule;
}

async function setUp(t: AfterTest): Promise<Scene> {
  const clock = new FakeClock();
  const schedule = new ManualSchedule();
  const upstream = await ScriptedUpstream.start(t);
  upstream.content.addImage(ALPINE, IMAGE, "1");
  const started = startUpstreamClient(t, [upstream.origin], {
    clock,
    probeSchedule: schedule.start,
  });
  return { ...started, upstream, clock, schedule };
}

function ask({ client }: Scene): Promise<unknown> {
  return client.headManifest(ALPINE, TAG, SIGNAL);
}

function breakerOf({ client }: Scene): string | undefined {
  return client.status().endpoints[0]?.breaker;
}

/** Runs the due probe and waits until its result is reported. */
async function probe(scene: Scene): Promise<void> {
  scene.schedule.runNext();
  while (breakerOf(scene) === "half-open") await new Promise(setImmediate);
}

void describe("an endpoint whose breaker is open", () => {
  void it("is probed by a HEAD of the manifest served last, without a client's request", async (t) => {
    const scene = await setUp(t);
    const { client, observer, upstream, clock, schedule } = scene;
    await ask(scene);
    await upstream.stop();
    await upstreamErrorOf(ask(scene));
    assert.deepEqual(schedule.delaysMs, [5_000]);
    clock.advance(5_000);
    await probe(scene);
    // The endpoint is still down: the next probe is due after twice the pause.
    assert.deepEqual(schedule.delaysMs, [10_000]);
    assert.equal(client.isDown(), true);
    await upstream.restart();
    upstream.forgetRequests();
    clock.advance(10_000);
    await probe(scene);
    assert.equal(client.isDown(), false);
    assert.deepEqual(observer.endpoints, [
      [upstream.origin, false],
      [upstream.origin, true],
    ]);
    assert.deepEqual(
      upstream.requests().map(({ method, target }) => [method, target]),
      [["HEAD", `/v2/${ALPINE}/manifests/1`]],
    );
    assert.deepEqual(schedule.delaysMs, []);
  });

  void it("is probed by the root if no manifest was served yet, and 401 shows that it is up", async (t) => {
    const scene = await setUp(t);
    const { client, upstream, clock } = scene;
    await upstream.stop();
    await upstreamErrorOf(ask(scene));
    await upstream.restart();
    upstream.when({}, { status: 401 });
    clock.advance(5_000);
    await probe(scene);
    assert.equal(client.isDown(), false);
    assert.deepEqual(
      upstream.requests().map(({ target }) => target),
      ["/v2/"],
    );
  });

  void it("after three failed manifests is probed by a manifest that worked before", async (t) => {
    const scene = await setUp(t);
    const { client, upstream, clock } = scene;
    await ask(scene);
    upstream.when({}, { status: 504 });
    for (const tag of ["a", "b", "c"]) {
      await upstreamErrorOf(
        client.getManifest(ALPINE, tagReference(tag), SIGNAL),
      );
    }
    assert.equal(client.isDown(), true);
    upstream.clearRules();
    upstream.when({ reference: "c" }, { status: 504 });
    clock.advance(5_000);
    await probe(scene);
    assert.equal(client.isDown(), false);
  });

  for (const hasHeadWorked of [false, true]) {
    const before = hasHeadWorked ? "no longer works" : "never worked";
    void it(`is marked up if GET works although HEAD ${before}`, async (t) => {
      const scene = await setUp(t);
      const { client, upstream, clock } = scene;
      if (hasHeadWorked) await ask(scene);
      upstream.when({ method: "HEAD" }, { status: 504 });
      if (hasHeadWorked) await upstreamErrorOf(ask(scene));
      await client.getManifest(ALPINE, TAG, SIGNAL);
      upstream.when({ kind: "manifest" }, { status: 504 });
      for (const tag of ["a", "b", "c"]) {
        await upstreamErrorOf(
          client.getManifest(ALPINE, tagReference(tag), SIGNAL),
        );
      }
      assert.equal(client.isDown(), true);
      upstream.clearRules();
      upstream.when({ method: "HEAD" }, { status: 504 });
      clock.advance(5_000);
      await probe(scene);
      assert.equal(client.isDown(), false);
    });
  }

  void it("is not probed before its Retry-After is over", async (t) => {
    const scene = await setUp(t);
    const { client, upstream, clock, schedule } = scene;
    upstream.when({}, { status: 503, headers: { "retry-after": "120" } });
    for (const tag of ["a", "b", "c"]) {
      await upstreamErrorOf(
        client.headManifest(ALPINE, tagReference(tag), SIGNAL),
      );
    }
    upstream.forgetRequests();
    assert.deepEqual(schedule.delaysMs, [120_000]);
    clock.advance(119_000);
    await probe(scene);
    assert.equal(upstream.count(), 0);
    assert.deepEqual(schedule.delaysMs, [1_000]);
  });

  void it("is probed for an hour after the last use by a client, and again after the next", async (t) => {
    const scene = await setUp(t);
    const { upstream, clock, schedule } = scene;
    await upstream.stop();
    await upstreamErrorOf(ask(scene));
    let probes = 0;
    for (let waitedMs = 0; schedule.delaysMs.length > 0; probes++) {
      const [delayMs = 0] = schedule.delaysMs;
      waitedMs += delayMs;
      assert.ok(waitedMs < HOUR_MS + 301_000, "it is probed without an end");
      clock.advance(delayMs);
      await probe(scene);
    }
    assert.ok(probes > 5);
    await upstreamErrorOf(ask(scene));
    assert.equal(schedule.delaysMs.length, 1);
  });

  void it("is probed while another endpoint of its upstream is in use", async (t) => {
    const clock = new FakeClock();
    const schedule = new ManualSchedule();
    const first = await ScriptedUpstream.start(t);
    const second = await ScriptedUpstream.start(t);
    first.content.addImage(ALPINE, IMAGE, "1");
    const { client, observer } = startUpstreamClient(
      t,
      [first.origin, second.origin],
      { clock, probeSchedule: schedule.start },
    );
    await second.stop();
    first.when({}, { status: 504 }, { times: 1 });
    await upstreamErrorOf(client.getManifest(ALPINE, TAG, SIGNAL));
    assert.deepEqual(observer.endpoints, [[second.origin, false]]);
    clock.advance(HOUR_MS);
    await client.getManifest(ALPINE, TAG, SIGNAL);
    await second.restart();
    schedule.runNext();
    await second.arrived(1);
    while (client.status().endpoints[1]?.breaker !== "closed") {
      await new Promise(setImmediate);
    }
    assert.deepEqual(observer.endpoints.at(-1), [second.origin, true]);
  });

  void it("is not probed while a client's request is the probe", async (t) => {
    const scene = await setUp(t);
    const { upstream, clock, schedule } = scene;
    await upstream.stop();
    await upstreamErrorOf(ask(scene));
    await upstream.restart();
    const barrier = new Barrier();
    upstream.when({}, { hold: { at: "headers", barrier } });
    clock.advance(5_000);
    const asked = ask(scene);
    await barrier.arrived(1);
    schedule.runNext();
    assert.equal(upstream.count(), 1);
    barrier.release();
    await asked;
    assert.equal(breakerOf(scene), "closed");
    schedule.runNext();
    assert.deepEqual(schedule.delaysMs, []);
  });

  for (const how of ["retire", "close"] as const) {
    void it(`is not probed after ${how}`, async (t) => {
      const scene = await setUp(t);
      const { client, upstream, clock, schedule } = scene;
      await upstream.stop();
      await upstreamErrorOf(ask(scene));
      await client[how]();
      clock.advance(5_000);
      assert.deepEqual(schedule.delaysMs, []);
      await upstreamErrorOf(ask(scene));
      assert.deepEqual(schedule.delaysMs, []);
    });
  }

  void it("has its running probe aborted by close", async (t) => {
    const scene = await setUp(t);
    const { client, upstream, clock, schedule } = scene;
    await upstream.stop();
    await upstreamErrorOf(ask(scene));
    await upstream.restart();
    upstream.when({}, { stallAt: "headers" });
    clock.advance(5_000);
    schedule.runNext();
    await upstream.arrived(1);
    await client.close();
    await upstream.ended();
    while (breakerOf(scene) === "half-open") await new Promise(setImmediate);
    assert.deepEqual(schedule.delaysMs, []);
  });
});
