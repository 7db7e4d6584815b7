import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { describe, it } from "node:test";
import { releaseAfter } from "../../support/after-test.ts";
import { buildImage } from "../../support/image-builder.ts";
import { startMirror, upstreamOf } from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const IMAGE = buildImage({ seed: "slow-senders" });

/** What came until the mirror ended the connection. */
async function heard(socket: Socket): Promise<string> {
  let text = "";
  socket.on("data", (part: Buffer) => (text += part.toString()));
  await once(socket, "close");
  return text;
}

void describe("a client that sends slowly (C4)", () => {
  void it("is cut off in the head of its request, however it drips, while others are answered", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("app", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const open = async (): Promise<Socket> => {
      const socket = connect(mirror.port, "127.0.0.1");
      socket.on("error", () => {});
      releaseAfter(test, () => void socket.destroy());
      await once(socket, "connect");
      return socket;
    };
    const stalled = await open();
    stalled.write("GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Half");
    const dripping = await open();
    dripping.write("GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Drip: ");
    const drip = setInterval(() => dripping.write("a"), 250);
    releaseAfter(test, () => clearInterval(drip));
    const ends = Promise.all([heard(stalled), heard(dripping)]);
    assert.equal((await mirror.get("/v2/app/manifests/v")).status, 200);
    for (const text of await ends) {
      assert.match(text, /^HTTP\/1\.1 408 /);
      assert.match(text, /"errors":\[\{"code":"UNKNOWN"/);
      assert.doesNotMatch(text, /HTTP\/1\.1 200/);
    }
    assert.equal((await mirror.get("/v2/app/manifests/v")).status, 200);
  });
});
