import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Barrier } from "../../support/barrier.ts";
import { seededBlob } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const SIZE = 1_000_000;
const BLOB = seededBlob("two upstreams", SIZE);
const GET = { kind: "blob", method: "GET" } as const;
const pathOf = (upstream: string) =>
  `/v2/${upstream}.example/x/blobs/${BLOB.digest}`;

async function setUp(test: AfterTest): Promise<{
  a: ScriptedUpstream;
  b: ScriptedUpstream;
  mirror: TestMirror;
}> {
  const a = await ScriptedUpstream.start(test);
  const b = await ScriptedUpstream.start(test);
  for (const upstream of [a, b]) upstream.content.addBlob("x", BLOB);
  const mirror = await startMirror(test, [
    upstreamOf(a, { name: "a.example" }),
    upstreamOf(b, { name: "b.example", isDefault: false }),
  ]);
  return { a, b, mirror };
}

/** Issue 10, item 4(b). */
void describe("one digest from two upstreams", () => {
  void it("is not delayed by the stalled download of the other upstream", async (test) => {
    const { a, b, mirror } = await setUp(test);
    const barrier = new Barrier();
    b.when(GET, { hold: { at: SIZE / 2, barrier } });
    const held = mirror.start(pathOf("b"));
    await held.received(1_000);
    const got = await mirror.get(pathOf("a"));
    assert.equal(got.sha256, BLOB.digest);
    assert.match(cacheStatusOf(got) ?? "", /stored/);
    assert.equal(a.count(GET), 1);
    // The fill that ends second finds the blob stored.
    barrier.release();
    assert.equal((await held.response).sha256, BLOB.digest);
    await mirror.settled();
    for (const name of ["a", "b"]) {
      assert.equal(cacheStatusOf(await mirror.get(pathOf(name))), "hit");
    }
    assert.deepEqual([a.count(GET), b.count(GET)], [1, 1]);
    assert.deepEqual(await readdir(join(mirror.root, "partial")), ["boot-id"]);
  });

  void it("is neither interrupted nor banned by wrong bytes of the other upstream", async (test) => {
    const { a, b, mirror } = await setUp(test);
    const barrier = new Barrier();
    a.when(GET, { hold: { at: SIZE / 2, barrier } }, { times: 1 });
    b.when(GET, { body: Buffer.alloc(SIZE) });
    const reader = mirror.start(pathOf("a"));
    await reader.received(1_000);
    const lied = await mirror.get(pathOf("b"));
    assert.notEqual(lied.end, "complete");
    const range = { Range: `bytes=1000-${SIZE / 4}` };
    assert.equal((await mirror.get(pathOf("b"), range)).status, 502);
    assert.equal((await mirror.get(pathOf("a"), range)).status, 206);
    barrier.release();
    assert.equal((await reader.response).sha256, BLOB.digest);
  });

  void it("is resumed after a restart from the bytes of its own upstream", async (test) => {
    const { a, b, mirror } = await setUp(test);
    const barriers = [new Barrier(), new Barrier()];
    for (const [i, upstream] of [a, b].entries()) {
      const barrier = barriers[i] ?? new Barrier();
      const at = (SIZE * (i + 1)) / 4;
      upstream.when(GET, { hold: { at, barrier } }, { times: 1 });
    }
    const clients = ["a", "b"].map((name) => mirror.start(pathOf(name)));
    for (const [i, client] of clients.entries()) {
      await client.received((SIZE * (i + 1)) / 4 - 1);
    }
    await mirror.close();
    for (const barrier of barriers) barrier.release();
    await Promise.all(clients.map(({ response }) => response));
    for (const upstream of [a, b]) upstream.forgetRequests();
    await mirror.open();
    for (const name of ["b", "a"]) {
      assert.equal((await mirror.get(pathOf(name))).sha256, BLOB.digest);
    }
    // The last received byte is requested again: the answer states the length.
    assert.deepEqual(
      [b, a].map((upstream) => upstream.requests(GET)[0]?.headers["range"]),
      [`bytes=${SIZE / 2 - 1}-`, `bytes=${SIZE / 4 - 1}-`],
    );
  });
});
