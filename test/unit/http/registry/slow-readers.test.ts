import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { describe, it } from "node:test";
import { Exchange } from "../../../../src/http/registry/exchange.ts";
import { sendBody } from "../../../../src/http/registry/send.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";

const PART = Buffer.alloc(256 * 1024);
const NO_PROGRESS_MS = 200;

interface Scene {
  readonly client: Socket;
  /** Resolves when the body was closed, with the number of parts read. */
  readonly closed: Promise<number>;
}

/** Opens a client whose response body has this many parts. */
async function open(test: AfterTest, parts: number): Promise<Scene> {
  const closed = Promise.withResolvers<number>();
  let left = parts;
  const server = createServer((_request, response) => {
    const lengthBytes = parts * PART.length;
    response.writeHead(200, { "Content-Length": lengthBytes });
    const body = {
      read: () => Promise.resolve(left-- > 0 ? [PART] : undefined),
      close: () => closed.resolve(parts - Math.max(0, left)),
    };
    void sendBody(response, new Exchange(), body, lengthBytes, NO_PROGRESS_MS);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = connect((server.address() as AddressInfo).port, "127.0.0.1");
  client.on("error", () => {});
  client.pause();
  releaseAfter(test, async () => {
    client.destroy();
    const ended = once(server, "close");
    server.close();
    server.closeAllConnections();
    await ended;
  });
  client.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  return { client, closed: closed.promise };
}

void describe("a client that reads nothing (C3)", () => {
  void it("is disconnected, and the body is closed with most of it unread", async (test) => {
    const { closed } = await open(test, 400);
    // The kernel's buffers hold some MiB; the rest of the 100 MiB was never read.
    const read = await closed;
    assert.ok(read < 100, `${read} parts were read`);
  });
});

void describe("a client that reads slowly", () => {
  void it("is served to the end as long as it makes progress", async (test) => {
    const { client, closed } = await open(test, 40);
    let bytes = 0;
    client.on("data", (part: Buffer) => {
      bytes += part.length;
      client.pause();
      setTimeout(() => client.resume(), 1);
    });
    client.resume();
    assert.equal(await closed, 40);
    while (bytes < 40 * PART.length) await once(client, "data");
  });
});
