import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Barrier } from "../../support/barrier.ts";
import { seededBlob } from "../../support/image-builder.ts";
import { startMirror, upstreamOf } from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const SIZE = 1_000_000;
const LIMITS = { connections: 0, connectionsPerAddress: 0, fills: 2 };
const GET = { kind: "blob", method: "GET" } as const;

void describe("the limit of fills", () => {
  void it("lets the others wait in turn, whatever their upstream (R5)", async (test) => {
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

  void it("ends a fill that nobody reads for one that somebody waits for", async (test) => {
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
    // What came of the first is kept and continued.
    assert.equal((await mirror.get(path(0))).bodyBytes, SIZE);
    assert.equal(upstream.count({ ...GET, hasRange: true }), 1);
  });
});
