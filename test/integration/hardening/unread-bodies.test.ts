import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { startMirror, upstreamOf } from "../../support/mirror-harness.ts";

/** More requests than connections to one endpoint. */
const ASKS = 40;
const MIB = 1_048_576;
/** Bytes that the buffers of both kernels may hold before the mirror reads. */
const MAX_SENT_BYTES = 16 * MIB;
const CHUNK = Buffer.alloc(65_536, "x");

interface Endless {
  readonly origin: string;
  /** Sent bytes of each response body. */
  readonly sent: number[];
  /** Resolves when every response has ended or its connection is closed. */
  ended(): Promise<void>;
}

/** Starts an upstream whose error responses have bodies of 1 GiB. */
async function startEndless(test: AfterTest, status: number): Promise<Endless> {
  const sent: number[] = [];
  const ends: Promise<void>[] = [];
  const pour = async (response: ServerResponse): Promise<void> => {
    const at = sent.push(0) - 1;
    const closed = once(response, "close");
    for (let bytes = 0; bytes < 1_024 * MIB; bytes += CHUNK.length) {
      if (response.closed) return;
      sent[at] = bytes;
      if (!response.write(CHUNK)) {
        await Promise.race([once(response, "drain"), closed]);
      }
    }
    response.end();
  };
  const server = createServer((request, response) => {
    response.on("error", () => {});
    response.writeHead(status, {
      "Content-Type": "application/json",
      "WWW-Authenticate": 'Basic realm="x"',
      // Redirects to itself; a redirect is followed five times.
      ...(status === 307 ? { Location: request.url } : {}),
    });
    if (request.method === "HEAD") response.end();
    else ends.push(pour(response));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  releaseAfter(test, () => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://127.0.0.1:${port}`,
    sent,
    ended: async () => {
      await Promise.all(ends);
    },
  };
}

void describe("the body of an upstream's refusal (R12)", () => {
  for (const status of [307, 401, 403, 404, 429, 500]) {
    void it(`of ${status} is not read to its end, and its connection is not lost`, async (test) => {
      const upstream = await startEndless(test, status);
      const mirror = await startMirror(test, [upstreamOf(upstream)]);
      for (let i = 0; i < ASKS; i++) {
        const digest = `sha256:${String(i).padStart(64, "0")}`;
        const got = await mirror.get(`/v2/a${i}/blobs/${digest}`);
        assert.ok(got.status >= 400, `${got.status}`);
      }
      await upstream.ended();
      assert.ok(upstream.sent.length > 0);
      const most = Math.max(...upstream.sent);
      assert.ok(most < MAX_SENT_BYTES, `${most} bytes were sent`);
    });
  }
});
