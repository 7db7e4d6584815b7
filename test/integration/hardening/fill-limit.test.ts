import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Barrier } from "../../support/barrier.ts";
import { seededBlob } from "../../support/image-builder.ts";
import { startMirror, upstreamOf } from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const SIZE = 1_000_000;
const LIMITS = {
  connections: 0,
  connectionsPerAddress: 0,
  fills: 2,
  uploads: 0,
};
const GET = { kind: "blob", method: "GET" } as const;

void describe("limits.fills", () => {
  void it("queues further fills of every upstream in order (R5)", async (test) => {
    const barrier = new Barrier();
    const upstreams = await Promise.all(
      [0, 1].map(() => ScriptedUpstream.start(test)),
    );
    const blobs = Array.from({ length: 6 }, (_, i) =>
      seededBlob(`f${i}`, SIZE),
    );
    for (const upstream of upstreams) {
      for (const blob of blobs) upstream.content.addBlob("x", blob);
      upstream.when(GET, { hold: { at: SIZE / 2, barrier } });
    }
    const [first, second] = upstreams;
    assert.ok(first && second);
    const mirror = await startMirror(
      test,
      [
        upstreamOf(first, { name: "one.example" }),
        upstreamOf(second, { name: "two.example", isDefault: false }),
      ],
      { config: { limits: LIMITS } },
    );
    const clients = blobs.map((blob, i) =>
      mirror.start(
        `/v2/${i % 2 === 0 ? "one" : "two"}.example/x/blobs/${blob.digest}`,
      ),
    );
    await mirror.asked(6);
    await Promise.all([first.arrived(1, GET), second.arrived(1, GET)]);
    assert.equal(first.count(GET) + second.count(GET), 2);
    barrier.release();
    for (const client of clients) {
      const response = await client.response;
      assert.equal(response.status, 200);
      assert.equal(response.bodyBytes, SIZE);
    }
    assert.equal(first.count(GET) + second.count(GET), 6);
  });

  void it("ends a fill without readers for one that a client waits for", async (test) => {
    const barrier = new Barrier();
    const upstream = await ScriptedUpstream.start(test);
    const blobs = Array.from({ length: 3 }, (_, i) =>
      seededBlob(`u${i}`, SIZE),
    );
    for (const blob of blobs) upstream.content.addBlob("x", blob);
    upstream.when(GET, { hold: { at: SIZE / 2, barrier } }, { times: 2 });
    const mirror = await startMirror(test, [upstreamOf(upstream)], {
      config: { limits: LIMITS },
    });
    const path = (i: number) => `/v2/x/blobs/${blobs[i]?.digest}`;
    const left = mirror.start(path(0), { leave: { atByte: 1_000, by: "fin" } });
    const stays = mirror.start(path(1));
    await left.response;
    await stays.received(1_000);
    const third = await mirror.get(path(2));
    assert.equal(third.status, 200);
    assert.equal(third.bodyBytes, SIZE);
    barrier.release();
    assert.equal((await stays.response).bodyBytes, SIZE);
    // The bytes of the first one are kept and continued.
    assert.equal((await mirror.get(path(0))).bodyBytes, SIZE);
    assert.equal(upstream.count({ ...GET, hasRange: true }), 1);
  });

  void it("resumes a trickling fill after the one that waits for its slot", async (test) => {
    const barrier = new Barrier();
    const upstreams = await Promise.all(
      [0, 1].map(() => ScriptedUpstream.start(test)),
    );
    const [first, second] = upstreams;
    assert.ok(first && second);
    const [slow, quick] = ["slow", "quick"].map((seed) =>
      seededBlob(seed, SIZE),
    );
    assert.ok(slow && quick);
    first.content.addBlob("x", slow);
    second.content.addBlob("x", quick);
    first.when(GET, { hold: { at: SIZE / 2, barrier } }, { times: 1 });
    const mirror = await startMirror(
      test,
      [
        upstreamOf(first, { name: "one.example", idleTimeoutMs: 600_000 }),
        upstreamOf(second, { name: "two.example", isDefault: false }),
      ],
      { config: { limits: { ...LIMITS, fills: 1 } } },
    );
    const trickling = mirror.start(`/v2/one.example/x/blobs/${slow.digest}`);
    await trickling.received(SIZE / 2);
    mirror.clock.advance(61_000);
    assert.equal(first.count(GET), 1);
    const waiting = mirror.start(`/v2/two.example/x/blobs/${quick.digest}`);
    assert.equal((await waiting.response).sha256, quick.digest);
    assert.equal((await trickling.response).sha256, slow.digest);
    assert.equal(first.count({ ...GET, hasRange: true }), 1);
    barrier.release();
  });

  void it("does not interrupt a trickling fill while no other waits for its slot", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const [one, two] = ["a", "b"].map((seed) => seededBlob(seed, SIZE));
    assert.ok(one && two);
    for (const blob of [one, two]) upstream.content.addBlob("x", blob);
    const barrier = new Barrier();
    upstream.when(GET, { hold: { at: SIZE / 2, barrier } }, { times: 1 });
    const mirror = await startMirror(test, [
      upstreamOf(upstream, { idleTimeoutMs: 600_000 }),
    ]);
    const held = mirror.start(`/v2/x/blobs/${one.digest}`);
    await held.received(SIZE / 2);
    mirror.clock.advance(61_000);
    assert.equal((await mirror.get(`/v2/x/blobs/${two.digest}`)).status, 200);
    barrier.release();
    assert.equal((await held.response).sha256, one.digest);
    assert.equal(upstream.count(GET), 2);
  });
});
