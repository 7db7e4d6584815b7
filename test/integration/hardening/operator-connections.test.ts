import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { describe, it } from "node:test";
import { releaseAfter } from "../../support/after-test.ts";
import { startMirror } from "../../support/mirror-harness.ts";

/** More connections than the listener keeps. */
const COUNT = 300;
const KEPT = 256;

void describe("the operator's listener", () => {
  void it("closes the longest idle connections for new ones, and still answers probes", async (test) => {
    const mirror = await startMirror(test, []);
    const sockets: Socket[] = [];
    let closed = 0;
    const enough = Promise.withResolvers<void>();
    for (let i = 0; i < COUNT; i++) {
      const socket = connect({ port: mirror.operatorPort, host: "127.0.0.1" });
      socket.on("error", () => {});
      socket.once("close", () => {
        closed += 1;
        if (closed === COUNT - KEPT) enough.resolve();
      });
      releaseAfter(test, () => void socket.destroy());
      await once(socket, "connect");
      sockets.push(socket);
    }
    await enough.promise;
    assert.ok(sockets.slice(0, COUNT - KEPT).every((one) => one.destroyed));
    const { status } = await fetch(`${mirror.operatorOrigin}/healthz`);
    assert.equal(status, 200);
    assert.ok(!sockets.at(-1)?.destroyed);
  });
});
