import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Barrier } from "../../support/barrier.ts";
import { ChildMirror, hubConfig } from "../../support/child-mirror.ts";
import { seededBlob } from "../../support/image-builder.ts";
import { type RawExchange, startRequest } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { soakFactor } from "../../support/soak.ts";

const MIB = 1024 * 1024;
const CLIENTS = 100;
/** Bound of the memory growth for any number of clients and any size of the blob. */
const FIXED_BYTES = 100_000_000;
const CLIENT_BYTES = 64 * 1024;

void describe("a cold blob requested by many clients at the same time", () => {
  void it("reaches every client during the download, by one whole GET, in bounded memory", async (test) => {
    const sizeBytes = Math.round(256 * MIB * soakFactor(0.25));
    const blob = seededBlob("many", sizeBytes);
    const expected = blob.read(0, sizeBytes);
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("library/big", blob);
    const barrier = new Barrier();
    upstream.when(
      { kind: "blob", method: "GET" },
      { hold: { at: sizeBytes / 2, barrier } },
      { times: 1 },
    );
    const mirror = await ChildMirror.start(test, {
      config: hubConfig(upstream.origin),
    });
    const before = mirror.child.rssBytes();
    const clients = Array.from({ length: CLIENTS }, (): RawExchange =>
      startRequest({
        port: mirror.port,
        path: `/v2/library/big/blobs/${blob.digest}`,
        body: "compare",
        expected,
        timeoutMs: 240_000,
      }),
    );
    await Promise.all(
      clients.map((client) => client.received(sizeBytes / 3 + 1, 240_000)),
    );
    const during = mirror.child.rssBytes();
    barrier.release();
    for (const client of clients) {
      const response = await client.response;
      assert.equal(response.status, 200);
      assert.equal(response.end, "complete");
      assert.equal(response.bodyBytes, sizeBytes);
      assert.equal(response.isPrefixOfExpected, true);
    }
    const after = mirror.child.rssBytes();
    assert.equal(upstream.count({ kind: "blob", method: "GET" }), 1);
    assert.equal(upstream.bytesSent({ kind: "blob" }), sizeBytes);
    const growth = Math.max(during, after) - before;
    test.diagnostic(
      `${CLIENTS} clients, ${sizeBytes} bytes: from ${before} to ${during}, then ${after} bytes resident`,
    );
    assert.ok(growth < FIXED_BYTES + CLIENTS * CLIENT_BYTES, String(growth));
  });
});
