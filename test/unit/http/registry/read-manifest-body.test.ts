import assert from "node:assert/strict";
import { once } from "node:events";
import {
  createServer,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { describe, it } from "node:test";
import { ManifestBodyReader } from "../../../../src/http/registry/read-manifest-body.ts";
import { RegistryError } from "../../../../src/oci/errors.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";

const MAX_BYTES = 1_000;

/** A server whose bodies one reader reads. */
async function setUp(test: AfterTest, reader: ManifestBodyReader) {
  const server = createServer().listen(0, "127.0.0.1");
  server.on("clientError", () => {});
  await once(server, "listening");
  releaseAfter(test, () => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  /** Sends the start of a request. @returns what is read of it, and the client's socket */
  return async (
    length: number | undefined,
    start: string,
  ): Promise<{
    read: Promise<Buffer>;
    arrived: Promise<void>;
    client: Socket;
  }> => {
    const accepted = once(server, "request");
    const client = connect(port, "127.0.0.1").on("error", () => {});
    releaseAfter(test, () => void client.destroy());
    const framing =
      length === undefined
        ? "Transfer-Encoding: chunked"
        : `Content-Length: ${length}`;
    client.write(`PUT /x HTTP/1.1\r\nHost: x\r\n${framing}\r\n\r\n${start}`);
    const [request, response] = (await accepted) as [
      IncomingMessage,
      ServerResponse,
    ];
    const read = reader.read(request, response, MAX_BYTES);
    read.catch(() => {});
    const arrived = once(request, "data").then(() => undefined);
    return { read, arrived, client };
  };
}

async function codeOf(read: Promise<Buffer>): Promise<string> {
  const error: unknown = await read.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert(error instanceof RegistryError, `got ${String(error)}`);
  return `${error.status} ${error.code}`;
}

void describe("the body of a pushed manifest", () => {
  void it("takes no memory from others for bytes that are only announced", async (test) => {
    const send = await setUp(test, new ManifestBodyReader(60_000, MAX_BYTES));
    const slow = await send(MAX_BYTES, "{");
    await slow.arrived;
    const chunked = await send(undefined, "1\r\n{\r\n");
    await chunked.arrived;
    const whole = await send(2, "{}");
    assert.equal((await whole.read).toString(), "{}");
    chunked.client.write("1\r\n}\r\n0\r\n\r\n");
    assert.equal((await chunked.read).toString(), "{}");
    slow.client.write(" ".repeat(MAX_BYTES - 1));
    assert.equal((await slow.read).length, MAX_BYTES);
  });

  void it("is refused while others hold the memory, and accepted afterwards", async (test) => {
    const send = await setUp(test, new ManifestBodyReader(60_000, MAX_BYTES));
    const large = await send(MAX_BYTES, " ".repeat(MAX_BYTES - 1));
    await large.arrived;
    const second = await send(2, "{}");
    assert.equal(await codeOf(second.read), "429 TOOMANYREQUESTS");
    large.client.write("}");
    assert.equal((await large.read).length, MAX_BYTES);
    const third = await send(2, "{}");
    assert.equal((await third.read).toString(), "{}");
  });

  void it("is refused if it is too large, announced or not, and frees its memory", async (test) => {
    const send = await setUp(test, new ManifestBodyReader(60_000, MAX_BYTES));
    const announced = await send(MAX_BYTES + 1, "{");
    assert.equal(await codeOf(announced.read), "413 SIZE_INVALID");
    const chunk = `3e9\r\n${" ".repeat(MAX_BYTES + 1)}\r\n0\r\n\r\n`;
    const unannounced = await send(undefined, chunk);
    assert.equal(await codeOf(unannounced.read), "413 SIZE_INVALID");
    const right = await send(MAX_BYTES, " ".repeat(MAX_BYTES));
    assert.equal((await right.read).length, MAX_BYTES);
  });
});
