import assert from "node:assert/strict";
import { once } from "node:events";
import {
  createServer,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import { BrokenUploadBody } from "../../../../src/hosted/uploads/upload-body.ts";
import { RequestBody } from "../../../../src/http/registry/request-body.ts";
import { keepHalfOpen } from "../../../../src/http/server/half-open.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";

/** Sends the start of a request. @returns its server side, and the client's socket */
async function receive(
  test: AfterTest,
  start: string,
  noProgressMs = 60_000,
): Promise<{
  body: RequestBody;
  request: IncomingMessage;
  response: ServerResponse;
  socket: Socket;
}> {
  const server = createServer();
  keepHalfOpen(server, (accepted) => accepted);
  server.on("clientError", () => {});
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  releaseAfter(test, () => {
    server.closeAllConnections();
    server.close();
  });
  const arrived = Promise.race([
    once(server, "request"),
    once(server, "checkContinue"),
  ]);
  const { port } = server.address() as AddressInfo;
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  releaseAfter(test, () => void socket.destroy());
  socket.write(start);
  const [request, response] = (await arrived) as [
    IncomingMessage,
    ServerResponse,
  ];
  const body = new RequestBody(request, response, monotonicMs, noProgressMs);
  return { body, request, response, socket };
}

function monotonicMs(): number {
  return performance.now();
}

function headOf(...lines: readonly string[]): string {
  return ["PATCH /x HTTP/1.1", "Host: x", ...lines, "", ""].join("\r\n");
}

async function readAll(body: RequestBody): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for (;;) {
    const chunks = await body.read();
    if (chunks === undefined) return Buffer.concat(all);
    all.push(...chunks);
  }
}

async function brokenBy(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert(error instanceof BrokenUploadBody);
  return error.reason;
}

void describe("the body of a request", () => {
  void it("is read as it was sent, with and without a length", async (test) => {
    const known = await receive(test, `${headOf("Content-Length: 6")}abcdef`);
    assert.equal(known.body.lengthBytes, 6);
    assert.equal((await readAll(known.body)).toString(), "abcdef");
    const chunked = await receive(
      test,
      `${headOf("Transfer-Encoding: chunked")}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n`,
    );
    assert.equal(chunked.body.lengthBytes, undefined);
    assert.equal((await readAll(chunked.body)).toString(), "abcde");
    const none = await receive(test, headOf());
    assert.equal(none.body.lengthBytes, 0);
    assert.equal((await readAll(none.body)).length, 0);
  });

  void it("is received ahead up to a bound only", async (test) => {
    const sizeBytes = 8 * 1024 * 1024;
    const { body, socket } = await receive(
      test,
      headOf(`Content-Length: ${sizeBytes}`),
    );
    socket.write(Buffer.alloc(sizeBytes));
    let receivedBytes = 0;
    let most = 0;
    for (;;) {
      const chunks = await body.read();
      if (chunks === undefined) break;
      const bytes = chunks.reduce((sum, { length }) => sum + length, 0);
      most = Math.max(most, bytes);
      receivedBytes += bytes;
      for (let turn = 0; turn < 20; turn++) await setImmediate();
    }
    assert.equal(receivedBytes, sizeBytes);
    assert(most > 64 * 1024 && most <= 512 * 1024, `${most}`);
  });

  void it("ends if its client leaves, after what arrived", async (test) => {
    for (const leave of ["end", "resetAndDestroy"] as const) {
      const { body, socket } = await receive(
        test,
        `${headOf("Content-Length: 10")}abc`,
      );
      assert.deepEqual(await body.read(), [Buffer.from("abc")]);
      const next = brokenBy(body.read());
      socket[leave]();
      assert.equal(await next, "left");
      assert(body.hasLeft);
      assert.equal(await brokenBy(body.read()), "left");
    }
  });

  void it("ends if its client left before it was read", async (test) => {
    for (const leave of ["end", "resetAndDestroy"] as const) {
      const { body, request, socket } = await receive(
        test,
        `${headOf("Content-Length: 10")}abc`,
      );
      const event = leave === "end" ? "end" : "close";
      const isGone = Promise.withResolvers<void>();
      request.socket.once(event, () => isGone.resolve());
      socket[leave]();
      await isGone.promise;
      assert.equal(await brokenBy(readAll(body)), "left");
      assert(body.hasLeft);
    }
  });

  void it("ends if its client sends nothing for too long", async (test) => {
    const start = `${headOf("Content-Length: 10")}abc`;
    const { body, socket } = await receive(test, start, 50);
    await body.read();
    assert.equal(await brokenBy(body.read()), "stalled");
    socket.write("more");
    assert.equal(await brokenBy(body.read()), "stalled");
    assert.equal(body.hasLeft, false);
  });

  void it("ends if another request cuts it", async (test) => {
    const start = `${headOf("Content-Length: 10")}abc`;
    const { body } = await receive(test, start);
    await body.read();
    const next = brokenBy(body.read());
    body.cut("replaced");
    assert.equal(await next, "replaced");
  });

  void it("receives nothing after it was released", async (test) => {
    const sizeBytes = 4 * 1024 * 1024;
    const { body, request, socket } = await receive(
      test,
      `${headOf(`Content-Length: ${sizeBytes}`)}abc`,
    );
    const listeners = request.socket.listenerCount("end");
    await body.read();
    body.release();
    assert.equal(request.socket.listenerCount("end"), listeners);
    socket.write(Buffer.alloc(sizeBytes - 3));
    // Another reader, which discards a refused body, has all of it.
    let discardedBytes = 0;
    request.on("data", (chunk: Buffer) => {
      discardedBytes += chunk.length;
    });
    request.resume();
    await once(request, "end");
    assert(discardedBytes > sizeBytes / 2);
  });

  void it("permits the client to send when it is read", async (test) => {
    const { body, socket, response } = await receive(
      test,
      headOf("Content-Length: 3", "Expect: 100-continue"),
    );
    const read = readAll(body);
    const [permission] = (await once(socket, "data")) as [Buffer];
    assert.equal(permission.toString(), "HTTP/1.1 100 Continue\r\n\r\n");
    socket.write("abc");
    assert.equal((await read).toString(), "abc");
    response.end();
  });
});
