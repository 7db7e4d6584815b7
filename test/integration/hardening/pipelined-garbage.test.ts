import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Barrier } from "../../support/barrier.ts";
import { Conversation } from "../../support/conversation.ts";
import { buildImage, seededBlob } from "../../support/image-builder.ts";
import { startMirror, upstreamOf } from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const IMAGE = buildImage({ seed: "pipelined-garbage" });
const BLOB = seededBlob("pipelined-garbage", 400_000);

const TAG = "GET /v2/app/manifests/v HTTP/1.1\r\nHost: m\r\n\r\n";
const SLOW = `GET /v2/app/blobs/${BLOB.digest} HTTP/1.1\r\nHost: m\r\n\r\n`;

const GARBAGE: Readonly<Record<string, string>> = {
  "another version": "GET /v2/ HTTP/9.9\r\n\r\n",
  "a TLS hello": "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
  "a head that is too large": `GET /v2/ HTTP/1.1\r\nX: ${"y".repeat(40_000)}\r\n\r\n`,
};

const REFUSED = /^HTTP\/1\.1 4(?:00|31) [^]*\{"errors":\[[^]*\]\}$/;

void describe("bytes that are not a request, during the answer to an earlier one", () => {
  for (const [name, garbage] of Object.entries(GARBAGE)) {
    for (const isInOneChunk of [true, false]) {
      const when = isInOneChunk ? "with it" : "after it";
      void it(`(${name}, sent ${when}) are refused after the whole answer, once`, async (test) => {
        const upstream = await ScriptedUpstream.start(test);
        upstream.content.addImage("app", IMAGE, "v");
        upstream.content.addBlob("app", BLOB);
        const barrier = new Barrier();
        upstream.when({ kind: "blob" }, { hold: { at: 100_000, barrier } });
        const mirror = await startMirror(test, [upstreamOf(upstream)]);
        const conversation = await Conversation.open(test, mirror.port);
        const { socket } = conversation;
        socket.write(isInOneChunk ? SLOW + garbage : SLOW, "latin1");
        await barrier.arrived();
        if (!isInOneChunk) socket.write(garbage, "latin1");
        // Further bytes after the refusal are refused too.
        socket.write(garbage, "latin1");
        // Once another connection is answered, earlier bytes have been received.
        assert.equal((await mirror.get("/v2/")).status, 200);
        assert.doesNotMatch(conversation.text, /HTTP\/1\.1 4/);
        barrier.release();
        const text = await conversation.rest();
        const bodyAt = text.indexOf("\r\n\r\n") + 4;
        const body = text.slice(bodyAt, bodyAt + BLOB.sizeBytes);
        assert.match(text, /^HTTP\/1\.1 200 OK/);
        assert.ok(body === BLOB.bytes().toString("latin1"));
        const rest = text.slice(bodyAt + BLOB.sizeBytes);
        assert.match(rest, REFUSED);
        assert.equal(rest.split("HTTP/1.1").length, 2);
      });
    }
  }

  void it("are refused after all pipelined answers", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("app", IMAGE, "v");
    upstream.content.addBlob("app", BLOB);
    const barrier = new Barrier();
    upstream.when({ kind: "blob" }, { hold: { at: "headers", barrier } });
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const conversation = await Conversation.open(test, mirror.port);
    conversation.socket.write(SLOW + TAG + SLOW + TAG + "\0\0\0\0");
    await barrier.arrived();
    barrier.release();
    const text = await conversation.rest();
    const statuses = [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, n]) => n);
    assert.deepEqual(statuses, ["200", "200", "200", "200", "400"]);
    assert.match(text.slice(text.lastIndexOf("HTTP/1.1")), REFUSED);
  });

  void it("are refused after the answers to remembered heads", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("app", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const conversation = await Conversation.open(test, mirror.port);
    for (let i = 1; i <= 6; i++) {
      conversation.socket.write(TAG);
      while (conversation.text.split("HTTP/1.1 200").length <= i) {
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
    }
    assert.ok(mirror.readHeads < 6);
    conversation.socket.write(`${TAG}\0\0\0\0`);
    const text = await conversation.rest();
    const last = text.slice(text.lastIndexOf("HTTP/1.1"));
    assert.match(last, REFUSED);
    assert.equal(text.split("HTTP/1.1 200").length, 8);
  });
});
