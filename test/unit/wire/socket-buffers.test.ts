import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, Socket } from "node:net";
import { afterEach, describe, it } from "node:test";
import {
  dropSpareBuffers,
  giveSocketBuffer,
  readIntoSpareBuffers,
  shareSocketBuffers,
  SOCKET_READ_BYTES,
} from "../../../src/wire/socket-buffers.ts";
import { releaseAfter } from "../../support/after-test.ts";
import { seededBytes } from "../../support/seeded-bytes.ts";

/** One read of a socket that found so many bytes. */
function readOf(sizeBytes: number): { bytes: Buffer; target: Uint8Array } {
  const socket = new Socket();
  const target = readIntoSpareBuffers.buffer();
  readIntoSpareBuffers.callback.call(socket, sizeBytes, target);
  const bytes = socket.read() as Buffer;
  assert.equal(bytes.length, sizeBytes);
  return { bytes, target };
}

void describe("buffers that sockets read into", () => {
  afterEach(() => {
    shareSocketBuffers(1);
    readIntoSpareBuffers.buffer();
    dropSpareBuffers();
  });

  void it("are read into again once their bytes are given back", () => {
    const first = readOf(SOCKET_READ_BYTES);
    const second = readOf(SOCKET_READ_BYTES - 1);
    assert.notEqual(first.bytes.buffer, second.bytes.buffer);
    assert.equal(giveSocketBuffer(second.bytes), true);
    const third = readOf(SOCKET_READ_BYTES);
    assert.equal(third.bytes.buffer, second.bytes.buffer);
    assert.notEqual(readOf(SOCKET_READ_BYTES).bytes.buffer, first.bytes.buffer);
  });

  void it("are not taken back for a part of what was read, nor twice", () => {
    const { bytes } = readOf(SOCKET_READ_BYTES);
    assert.equal(giveSocketBuffer(bytes.subarray(1)), false);
    assert.equal(giveSocketBuffer(bytes.subarray(0, -1)), false);
    assert.equal(giveSocketBuffer(bytes), true);
    assert.equal(giveSocketBuffer(bytes), false);
    assert.equal(giveSocketBuffer(Buffer.alloc(SOCKET_READ_BYTES)), false);
  });

  void it("are kept by their socket when a read brings little", () => {
    const { bytes, target } = readOf(100);
    assert.notEqual(bytes.buffer, target.buffer);
    assert.equal(bytes.buffer.byteLength, 100);
    assert.equal(giveSocketBuffer(bytes), false);
    assert.equal(readIntoSpareBuffers.buffer(), target);
  });

  void it("are smaller the more downloads share them, and never mixed", () => {
    const large = readOf(SOCKET_READ_BYTES);
    for (const [downloads, bytes] of [
      [64, SOCKET_READ_BYTES],
      [200, SOCKET_READ_BYTES / 4],
      [1_000, 16 * 1024],
      [100_000, 16 * 1024],
    ] as const) {
      shareSocketBuffers(downloads);
      assert.equal(readIntoSpareBuffers.buffer().length, bytes);
    }
    giveSocketBuffer(large.bytes);
    const small = readOf(10_000);
    assert.equal(small.target.length, 16 * 1024);
    assert.equal(giveSocketBuffer(small.bytes), true);
    shareSocketBuffers(1);
    assert.equal(readIntoSpareBuffers.buffer().length, SOCKET_READ_BYTES);
  });

  void it("are let go when a download has ended", () => {
    const { bytes } = readOf(SOCKET_READ_BYTES);
    giveSocketBuffer(bytes);
    dropSpareBuffers();
    assert.notEqual(readOf(SOCKET_READ_BYTES).bytes.buffer, bytes.buffer);
  });

  void it("bring every byte of a connection, however its reader pauses", async (test) => {
    const sizeBytes = 16 * 1024 * 1024 + 7;
    const sent = seededBytes("socket", sizeBytes).read(0, sizeBytes);
    const server = createServer((socket) => socket.end(sent));
    releaseAfter(test, () => {
      server.close();
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const socket = connect({
      port,
      host: "127.0.0.1",
      onread: readIntoSpareBuffers,
    });
    let at = 0;
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      assert.ok(chunk.equals(sent.subarray(at, at + chunk.length)));
      at += chunk.length;
      giveSocketBuffer(chunk);
      if (at % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal(at, sizeBytes);
  });
});
