import assert from "node:assert/strict";
import { once } from "node:events";
import {
  createServer,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { describe, it } from "node:test";
import {
  type MirrorStreams,
  mirrorStreams,
} from "../../../src/cli/mirror-streams.ts";
import { Secret } from "../../../src/config/config.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";

const NEVER = new AbortController().signal;
const CHUNK = Buffer.alloc(64 * 1024, 7);

async function serve(
  test: AfterTest,
  answer: (request: IncomingMessage, response: ServerResponse) => void,
  idleTimeoutMs = 60_000,
): Promise<MirrorStreams> {
  const server = createServer(answer);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  releaseAfter(test, () => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return mirrorStreams(
    {
      operator: {
        listen: { host: "127.0.0.1", port },
        token: new Secret("a-token-of-the-test"),
      },
    },
    idleTimeoutMs,
  );
}

async function* chunks(count: number): AsyncGenerator<Buffer> {
  for (let left = count; left > 0; left--) yield CHUNK;
}

async function* broken(): AsyncGenerator<Buffer> {
  yield* chunks(3);
  throw new Error("the file ends early");
}

void describe("a download from a running mirror", () => {
  void it("sends the order with the token, and returns the body as it arrives", async (test) => {
    const streams = await serve(test, (request, response) => {
      void buffer(request).then((body) => {
        const { authorization } = request.headers;
        response.setHeader("x-order", body.toString());
        response.end(`${request.method} ${request.url} ${authorization}`);
      });
    });
    const got = await streams.download("POST", "/export", { refs: [] }, NEVER);
    assert("headers" in got);
    assert.equal(got.headers["x-order"], '{"refs":[]}');
    assert.equal(
      (await buffer(got.body)).toString(),
      "POST /export Bearer a-token-of-the-test",
    );
  });

  void it("returns the answer if it is not 200", async (test) => {
    const streams = await serve(test, (_request, response) => {
      response.statusCode = 404;
      response.end('{"detail":"no image matches"}');
    });
    const got = await streams.download("GET", "/export", undefined, NEVER);
    assert.deepEqual(got, {
      status: 404,
      body: { detail: "no image matches" },
    });
  });

  void it("fails if the mirror ends the body early", async (test) => {
    const streams = await serve(test, (_request, response) => {
      response.write(CHUNK, () => response.destroy());
    });
    const got = await streams.download("GET", "/export", undefined, NEVER);
    assert("body" in got && got.body instanceof Readable);
    await assert.rejects(buffer(got.body));
  });

  void it("fails after a time without a byte", async (test) => {
    const streams = await serve(test, () => undefined, 50);
    await assert.rejects(streams.download("GET", "/export", undefined, NEVER), {
      message: "the running mirror sent nothing for 0.05 s",
    });
  });
});

void describe("an upload to a running mirror", () => {
  void it("is sent whole, and its answer returned", async (test) => {
    const streams = await serve(test, (request, response) => {
      void buffer(request).then((body) => {
        const type = request.headers["content-type"];
        response.end(JSON.stringify({ bytes: body.length, type }));
      });
    });
    const answer = await streams.upload(
      "/import",
      Readable.from(chunks(40)),
      "application/x-tar",
      NEVER,
    );
    assert.deepEqual(answer, {
      status: 200,
      body: { bytes: 40 * CHUNK.length, type: "application/x-tar" },
    });
  });

  void it("ends with the answer of a mirror that refuses the rest", async (test) => {
    const streams = await serve(test, (request, response) => {
      request.once("data", () => {
        request.pause();
        response.statusCode = 400;
        response.end('{"detail":"damaged"}');
      });
    });
    let sent = 0;
    const endless = async function* (): AsyncGenerator<Buffer> {
      for (;;) {
        sent += 1;
        yield CHUNK;
      }
    };
    const answer = await streams.upload(
      "/import",
      Readable.from(endless()),
      "application/x-tar",
      NEVER,
    );
    assert.deepEqual(answer, { status: 400, body: { detail: "damaged" } });
    const sentBefore = sent;
    await new Promise(setImmediate);
    assert.equal(sent, sentBefore);
  });

  void it("fails with the error of its body, and sends no end", async (test) => {
    const ended: string[] = [];
    const closed = Promise.withResolvers<void>();
    const streams = await serve(test, (request) => {
      request.resume();
      request.on("end", () => ended.push("end"));
      request.on("close", () => closed.resolve());
      request.on("error", () => undefined);
    });
    await assert.rejects(
      streams.upload(
        "/import",
        Readable.from(broken()),
        "application/x-tar",
        NEVER,
      ),
      { message: "the file ends early" },
    );
    await closed.promise;
    assert.deepEqual(ended, []);
  });

  void it("fails if the connection ends without an answer", async (test) => {
    const streams = await serve(test, (request) => {
      request.once("data", () => request.socket.destroy());
    });
    await assert.rejects(
      streams.upload(
        "/import",
        Readable.from(chunks(1_000)),
        "application/x-tar",
        NEVER,
      ),
    );
  });
});
