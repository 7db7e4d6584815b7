import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Barrier } from "../../support/barrier.ts";
import { seededBlob } from "../../support/image-builder.ts";
import {
  rawRequest,
  startRequest,
  wholeBytes,
} from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const BLOB = seededBlob("raw", 3_000_000);
const path = `/v2/a/blobs/${BLOB.digest}`;

void describe("a raw client", () => {
  void it("compares for many clients, and sees a byte that differs", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("a", BLOB);
    const { port } = upstream.registry;
    const expected = wholeBytes(BLOB);
    const ask = (): ReturnType<typeof rawRequest> =>
      rawRequest({ port, path, body: "compare", expected });
    for (const one of await Promise.all(Array.from({ length: 20 }, ask))) {
      assert.equal(one.isPrefixOfExpected, true);
      assert.deepEqual([one.bodyBytes, one.end], [3_000_000, "complete"]);
      assert.equal(one.body.length, 0);
    }
    upstream.when({ kind: "blob" }, { flip: "last" });
    assert.equal((await ask()).isPrefixOfExpected, false);
  });

  void it("reads no further than a pause until it is released", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("a", BLOB);
    const barrier = new Barrier();
    const exchange = startRequest({
      port: upstream.registry.port,
      path,
      body: "hash",
      pause: { atByte: 100_000, barrier },
    });
    await barrier.arrived();
    assert.ok(exchange.bodyBytes < 1_000_000);
    barrier.release();
    assert.equal((await exchange.response).sha256, BLOB.digest);
  });

  void it("reads slowly, byte for byte", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("a", BLOB);
    const got = await rawRequest({
      port: upstream.registry.port,
      path,
      body: "hash",
      bytesPerSecond: 20_000_000,
    });
    assert.equal(got.sha256, BLOB.digest);
  });

  for (const by of ["fin", "rst"] as const) {
    void it(`leaves by ${by} in the middle`, async (test) => {
      const upstream = await ScriptedUpstream.start(test);
      upstream.content.addBlob("a", BLOB);
      upstream.when({ kind: "blob" }, { stallAt: 200_000 });
      const got = await rawRequest({
        port: upstream.registry.port,
        path,
        leave: { atByte: 200_000, by },
      });
      assert.deepEqual([got.end, got.bodyBytes], ["left", 200_000]);
      await upstream.ended({}, 1);
    });
  }

  void it("says what a refused connection and an early end were", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("a", BLOB);
    upstream.when({ kind: "blob" }, { cut: { atByte: 10, by: "fin" } });
    const { port } = upstream.registry;
    const exchange = startRequest({ port, path });
    await assert.rejects(
      exchange.received(11),
      /ended \(fin\).*after 10 bytes/,
    );
    await upstream.stop();
    const refused = await rawRequest({ port, path });
    assert.deepEqual([refused.status, refused.bodyBytes], [0, 0]);
  });
});
