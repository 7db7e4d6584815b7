import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect } from "node:net";
import { describe, it } from "node:test";
import fastify from "fastify";
import { limitBodyIdle } from "../../../../src/http/operator/body-idle.ts";
import { releaseAfter } from "../../../support/after-test.ts";

const IDLE_MS = 100;

void describe("a body of the operator API", () => {
  void it("is given up if its client stops, and work on a whole one is not", async (test) => {
    const app = fastify({ forceCloseConnections: true });
    limitBodyIdle(app, IDLE_MS);
    const reached = Promise.withResolvers<void>();
    const worked = Promise.withResolvers<void>();
    app.post("/", async () => {
      reached.resolve();
      await worked.promise;
      return { done: true };
    });
    await app.listen({ host: "127.0.0.1", port: 0 });
    releaseAfter(test, () => app.close());
    const { port } = app.server.address() as AddressInfo;
    const answered = fetch(`http://127.0.0.1:${port}/`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
    await reached.promise;
    const stalled = connect(port, "127.0.0.1");
    stalled.write(
      'POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"a":',
    );
    await once(stalled.resume(), "close");
    worked.resolve();
    assert.deepEqual(await (await answered).json(), { done: true });
  });
});
