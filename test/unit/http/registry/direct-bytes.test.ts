import assert from "node:assert/strict";
import { once } from "node:events";
import { writeSync } from "node:fs";
import {
  Agent,
  createServer,
  get,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from "node:http";
import { createServer as createTlsServer, get as getOverTls } from "node:https";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import { buffer } from "node:stream/consumers";
import { Exchange } from "../../../../src/http/registry/exchange.ts";
import { sendBody } from "../../../../src/http/registry/send.ts";
import type { Body } from "../../../../src/bodies/body.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";
import { createCertificateAuthority } from "../../../support/certificate-authority.ts";
import { seededBytes } from "../../../support/seeded-bytes.ts";

const READ_BYTES = 64 * 1024;
const SIZE_BYTES = 20 * 1024 * 1024;
const CONTENT = seededBytes("direct", SIZE_BYTES).read(0, SIZE_BYTES);

/** A body that can be read, and can write to a socket directly, bypassing its stream. */
class MemoryBody implements Body {
  readonly reads: number[] = [];
  readonly sent: number[] = [];
  isClosed = false;
  #position = 0;

  read(): Promise<readonly Uint8Array[] | undefined> {
    const part = CONTENT.subarray(this.#position, this.#position + READ_BYTES);
    this.#position += part.length;
    this.reads.push(part.length);
    return Promise.resolve(part.length === 0 ? undefined : [part]);
  }

  sendTo(socket: number, maxBytes: number): number {
    assert.ok(!this.isClosed, "sendTo was called after close");
    let sent = 0;
    try {
      sent = writeSync(socket, CONTENT, this.#position, maxBytes);
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, "EAGAIN");
    }
    this.#position += sent;
    if (sent > 0) this.sent.push(sent);
    return sent;
  }

  close(): void {
    this.isClosed = true;
  }
}

interface Answer {
  readonly listener: RequestListener;
  readonly exchange: Exchange;
  /** Ends with the body's. */
  readonly done: Promise<void>;
}

function answerWith(body: Body, lengthBytes: number | "unknown"): Answer {
  const exchange = new Exchange();
  const done = Promise.withResolvers<void>();
  return {
    exchange,
    done: done.promise,
    listener: (_request, response) => {
      const length = lengthBytes === "unknown" ? undefined : lengthBytes;
      response.writeHead(
        200,
        length === undefined ? [] : ["Content-Length", length],
      );
      sendBody(response, exchange, body, length).then(
        done.resolve,
        done.reject,
      );
    },
  };
}

type Server = ReturnType<typeof createServer>;

async function listen(test: AfterTest, server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  releaseAfter(test, async () => {
    const closed = once(server, "close");
    server.close();
    server.closeAllConnections();
    await closed;
  });
  return (server.address() as AddressInfo).port;
}

async function fetchFrom(
  port: number,
  agent?: Agent,
): Promise<IncomingMessage> {
  const request = get({ host: "127.0.0.1", port, agent });
  const [response] = (await once(request, "response")) as [IncomingMessage];
  return response;
}

const sum = (numbers: readonly number[]) =>
  numbers.reduce((total, number) => total + number, 0);

void describe("bytes that a body writes to the socket directly", () => {
  void it("alternate with bytes that are read, in order and without repetition", async (test) => {
    const body = new MemoryBody();
    const { listener, exchange, done } = answerWith(body, SIZE_BYTES);
    const port = await listen(test, createServer(listener));
    const received = await buffer(await fetchFrom(port));
    await done;
    assert.ok(received.equals(CONTENT));
    assert.equal(sum(body.reads) + sum(body.sent), SIZE_BYTES);
    assert.ok(sum(body.sent) > SIZE_BYTES / 2, `${sum(body.sent)} sent`);
    assert.equal(exchange.sentBytes, SIZE_BYTES);
    assert.equal(exchange.error, undefined);
  });

  void it("leave the connection usable for the next request", async (test) => {
    const bodies = [new MemoryBody(), new MemoryBody()];
    const answers = bodies.map((body) => answerWith(body, SIZE_BYTES));
    const connections = new Set<unknown>();
    const server = createServer((request, response) => {
      connections.add(request.socket);
      answers.shift()?.listener(request, response);
    });
    const port = await listen(test, server);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    releaseAfter(test, () => agent.destroy());
    for (const body of bodies) {
      assert.ok((await buffer(await fetchFrom(port, agent))).equals(CONTENT));
      assert.ok(body.sent.length > 0);
    }
    assert.equal(connections.size, 1);
  });

  void it("never exceed the announced length", async (test) => {
    const lengthBytes = READ_BYTES + 1000;
    const body = new MemoryBody();
    const { listener, exchange, done } = answerWith(body, lengthBytes);
    const port = await listen(test, createServer(listener));
    const response = await fetchFrom(port);
    assert.ok(
      (await buffer(response)).equals(CONTENT.subarray(0, lengthBytes)),
    );
    // The body has more bytes than announced, which is an error.
    await done;
    assert.equal(sum(body.sent), lengthBytes);
    assert.match(String(exchange.error), /longer than announced/);
  });

  void it("are not sent if the length is unknown and the body is chunked", async (test) => {
    const body = new MemoryBody();
    const { listener } = answerWith(body, "unknown");
    const port = await listen(test, createServer(listener));
    assert.ok((await buffer(await fetchFrom(port))).equals(CONTENT));
    assert.deepEqual(body.sent, []);
  });

  void it("are not sent over TLS", async (test) => {
    const authority = createCertificateAuthority();
    const body = new MemoryBody();
    const { listener } = answerWith(body, SIZE_BYTES);
    const port = await listen(
      test,
      createTlsServer(authority.issue(), listener),
    );
    const request = getOverTls({ host: "127.0.0.1", port, ca: authority.cert });
    const [response] = (await once(request, "response")) as [IncomingMessage];
    assert.ok((await buffer(response)).equals(CONTENT));
    assert.deepEqual(body.sent, []);
  });

  void it("are not sent once the connection is closed, because its descriptor may be reused", async (test) => {
    let closing: ServerResponse | undefined;
    class ClosingBody extends MemoryBody {
      override sendTo(socket: number, maxBytes: number): number {
        const sent = super.sendTo(socket, Math.min(maxBytes, 1000));
        closing?.socket?.destroy();
        return sent;
      }
    }
    const body = new ClosingBody();
    const { listener, done } = answerWith(body, SIZE_BYTES);
    const port = await listen(
      test,
      createServer((request, response) => {
        closing = response;
        listener(request, response);
      }),
    );
    await assert.rejects(async () => await buffer(await fetchFrom(port)));
    await done;
    assert.deepEqual(body.sent, [1000]);
    assert.ok(body.isClosed);
  });
});
