import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { TAIL_BYTES } from "../../../src/bodies/body.ts";
import { Barrier } from "../../support/barrier.ts";
import { ChildMirror, hubConfig } from "../../support/child-mirror.ts";
import { seededBlob } from "../../support/image-builder.ts";
import { rawRequest, startRequest } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const MIB = 1024 * 1024;
const SIZE = 32 * MIB;

/** Waits for the clean-up of the folder, which ends after the response. */
async function assertNoPartials(mirror: ChildMirror): Promise<void> {
  let names: string[] = [];
  for (let tries = 0; tries < 200; tries++) {
    names = (await readdir(join(mirror.root, "partial"))).filter((name) =>
      name.startsWith("sha256"),
    );
    if (names.length === 0) return;
    await delay(25);
  }
  assert.deepEqual(names, []);
}

/** The bytes received; bytes that a reset discarded in transit do not count. */
async function receivedBytes(mirror: ChildMirror): Promise<number> {
  const line = /^entrepot_upstream_received_bytes_total\{.*\} (\d+)$/m.exec(
    await mirror.metrics(),
  );
  return Number(line?.[1]);
}

async function blobs(mirror: ChildMirror): Promise<string[]> {
  return readdir(join(mirror.root, "blobs/sha256"));
}

void describe("an upstream that closes the connection in the middle of a body", () => {
  for (const framing of ["content-length", "chunked", "eof"] as const) {
    for (const by of ["fin", "rst"] as const) {
      void it(`with ${framing} by ${by}: the client gets the whole blob and few bytes are fetched twice`, async (test) => {
        const blob = seededBlob(`cut-${framing}-${by}`, SIZE);
        const upstream = await ScriptedUpstream.start(test);
        upstream.content.addBlob("library/big", blob);
        upstream.when(
          { kind: "blob" },
          { framing, cut: { atByte: SIZE / 2, by } },
          { times: 1 },
        );
        const mirror = await ChildMirror.start(test, {
          config: hubConfig(upstream.origin),
        });
        const request = {
          port: mirror.port,
          path: `/v2/library/big/blobs/${blob.digest}`,
          body: "hash",
        } as const;
        const response = await rawRequest(request);
        assert.equal(response.end, "complete");
        assert.equal(response.sha256, blob.digest);
        assert.equal(upstream.count({ kind: "blob" }), 2);
        assert.equal(upstream.count({ kind: "blob", hasRange: true }), 1);
        assert.ok((await receivedBytes(mirror)) < SIZE * 1.05);
        upstream.forgetRequests();
        const again = await rawRequest(request);
        assert.equal(again.sha256, blob.digest);
        assert.equal(upstream.count(), 0);
      });
    }
  }

  void it("permanently: the client's connection ends with FIN, and the next pull fetches only the rest", async (test) => {
    const blob = seededBlob("cut-for-good", SIZE);
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("library/big", blob);
    upstream.when(
      { kind: "blob" },
      { cut: { atByte: SIZE / 2, by: "fin" } },
      { times: 1 },
    );
    upstream.when(
      { kind: "blob", hasRange: true },
      { status: 404 },
      { times: 1 },
    );
    const mirror = await ChildMirror.start(test, {
      config: hubConfig(upstream.origin),
    });
    const request = {
      port: mirror.port,
      path: `/v2/library/big/blobs/${blob.digest}`,
      body: "hash",
    } as const;
    const cut = await rawRequest(request);
    assert.equal(cut.status, 200);
    assert.equal(cut.end, "fin");
    assert.ok(cut.bodyBytes < SIZE);
    assert.deepEqual(await blobs(mirror), []);
    upstream.forgetRequests();
    const whole = await rawRequest(request);
    assert.equal(whole.end, "complete");
    assert.equal(whole.sha256, blob.digest);
    // Bytes in transit when the connection closed are fetched again: one or two reads.
    assert.ok(upstream.bytesSent({ kind: "blob" }) < SIZE * 0.55);
    await assertNoPartials(mirror);
  });
});

void describe("an upstream that sends wrong bytes", () => {
  for (const flip of ["first", "middle", "last"] as const) {
    for (const framing of ["content-length", "chunked", "eof"] as const) {
      void it(`${flip} byte, ${framing}: no client gets a complete body and nothing is published`, async (test) => {
        const blob = seededBlob(`flip-${flip}`, 2 * MIB);
        const upstream = await ScriptedUpstream.start(test);
        upstream.content.addBlob("library/big", blob);
        upstream.when({ kind: "blob" }, { flip, framing });
        const mirror = await ChildMirror.start(test, {
          config: hubConfig(upstream.origin),
        });
        const request = {
          port: mirror.port,
          path: `/v2/library/big/blobs/${blob.digest}`,
          body: "hash",
        } as const;
        const responses = await Promise.all([
          rawRequest(request),
          rawRequest(request),
        ]);
        for (const response of responses) {
          assert.equal(response.end, "fin");
          assert.ok(response.bodyBytes <= 2 * MIB - TAIL_BYTES);
        }
        assert.deepEqual(await blobs(mirror), []);
        await assertNoPartials(mirror);
        // Ranges are refused for a while, so that an engine that resumes uses another registry.
        const resumed = await rawRequest({
          ...request,
          headers: { Range: `bytes=${MIB}-` },
        });
        assert.equal(resumed.status, 502);
        upstream.clearRules();
        const right = await rawRequest(request);
        assert.equal(right.end, "complete");
        assert.equal(right.sha256, blob.digest);
        assert.match(
          await mirror.metrics(),
          /^entrepot_digest_mismatches_total 1$/m,
        );
      });
    }
  }

  void it("is replaced by the next endpoint during a download, unnoticed by the client", async (test) => {
    const blob = seededBlob("fail-over", SIZE);
    const broken = await ScriptedUpstream.start(test);
    const sound = await ScriptedUpstream.start(test);
    broken.content.addBlob("library/big", blob);
    sound.content.addBlob("library/big", blob);
    broken.when(
      { kind: "blob" },
      { cut: { atByte: SIZE / 4, by: "rst" } },
      { times: 1 },
    );
    broken.when({ kind: "blob" }, { status: 500 });
    const mirror = await ChildMirror.start(test, {
      config: hubConfig(broken.origin, sound.origin),
    });
    const response = await rawRequest({
      port: mirror.port,
      path: `/v2/library/big/blobs/${blob.digest}`,
      body: "hash",
    });
    assert.equal(response.end, "complete");
    assert.equal(response.sha256, blob.digest);
    assert.equal(sound.count({ kind: "blob", hasRange: true }), 1);
    assert.ok((await receivedBytes(mirror)) < SIZE * 1.05);
  });
});

void describe("readers of one fill", () => {
  void it("a slow reader does not delay a fast one, and gets every byte", async (test) => {
    const blob = seededBlob("pace", SIZE);
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("library/big", blob);
    const mirror = await ChildMirror.start(test, {
      config: hubConfig(upstream.origin),
    });
    const request = {
      port: mirror.port,
      path: `/v2/library/big/blobs/${blob.digest}`,
      body: "hash",
    } as const;
    const barrier = new Barrier();
    const slow = startRequest({
      ...request,
      pause: { atByte: 100_000, barrier },
    });
    await slow.received(100_000);
    const fast = await rawRequest(request);
    // The slow reader has not moved, so it delayed no other.
    assert.equal(fast.end, "complete");
    assert.equal(fast.sha256, blob.digest);
    assert.ok(slow.bodyBytes < SIZE / 2);
    await upstream.ended({ kind: "blob" });
    barrier.release();
    const late = await slow.response;
    assert.equal(late.end, "complete");
    assert.equal(late.sha256, blob.digest);
    assert.equal(upstream.count({ kind: "blob" }), 1);
  });

  void it("may all leave: the fill continues, and the client finds the blob stored later", async (test) => {
    const blob = seededBlob("survives", SIZE);
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("library/big", blob);
    const barrier = new Barrier();
    upstream.when({ kind: "blob" }, { hold: { at: MIB, barrier } });
    const mirror = await ChildMirror.start(test, {
      config: hubConfig(upstream.origin),
    });
    const request = {
      port: mirror.port,
      path: `/v2/library/big/blobs/${blob.digest}`,
      body: "hash",
    } as const;
    const gone = await rawRequest({
      ...request,
      leave: { atByte: 1000, by: "rst" },
    });
    assert.equal(gone.end, "left");
    barrier.release();
    await upstream.ended({ kind: "blob" }, 1);
    const back = await rawRequest(request);
    assert.equal(back.sha256, blob.digest);
    assert.equal(upstream.count({ kind: "blob" }), 1);
  });
});

void describe("a mirror that is killed in the middle of a fill", () => {
  void it("fetches only the rest at the next pull", async (test) => {
    const blob = seededBlob("killed", SIZE);
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("library/big", blob);
    const barrier = new Barrier();
    upstream.when(
      { kind: "blob" },
      { hold: { at: SIZE / 2, barrier } },
      { times: 1 },
    );
    const mirror = await ChildMirror.start(test, {
      config: hubConfig(upstream.origin),
    });
    const path = `/v2/library/big/blobs/${blob.digest}`;
    const first = startRequest({ port: mirror.port, path, body: "hash" });
    await first.received(SIZE / 2 - TAIL_BYTES);
    await mirror.kill();
    await first.response;
    barrier.release();
    await upstream.ended({ kind: "blob" });
    upstream.forgetRequests();
    await mirror.start();
    const second = await rawRequest({
      port: mirror.port,
      path,
      body: "hash",
    });
    assert.equal(second.end, "complete");
    assert.equal(second.sha256, blob.digest);
    assert.equal(upstream.count({ kind: "blob" }), 1);
    // Written bytes are kept, and few of the bytes that the client has got are not written.
    assert.ok(
      upstream.bytesSent({ kind: "blob" }) <= SIZE / 2 + 4 * MIB,
      String(upstream.bytesSent({ kind: "blob" })),
    );
    await assertNoPartials(mirror);
  });
});
