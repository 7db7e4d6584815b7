import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, fsyncSync, openSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { openPageCache } from "../../../../../src/storage/local/blobs/page-cache.ts";
import { socketDescriptor } from "../../../../../src/http/fast-path/socket-descriptor.ts";
import {
  type AfterTest,
  releaseAfter,
} from "../../../../support/after-test.ts";
import { connectedSockets } from "../../../../support/connected-sockets.ts";
import { offersPageCache } from "../../../../support/page-cache-offer.ts";
import { seededBytes } from "../../../../support/seeded-bytes.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

const MIB = 1024 * 1024;
const SIZE_BYTES = 24 * MIB;

interface Scene {
  readonly bytes: Buffer;
  readonly path: string;
  readonly fd: number;
  /** Whether this machine can send from the page cache. */
  readonly isOffered: boolean;
  /** Like {@link PageCache.send}; undefined also without a page cache. */
  readonly send: (
    socket: number,
    position: number,
    length: number,
  ) => number | undefined;
  /** Like {@link PageCache.read}; undefined without a page cache. */
  readonly read: (
    target: Uint8Array,
    length: number,
    position: number,
  ) => boolean | undefined;
}

/** Writes a file, which is then in memory. */
async function makeScene(test: AfterTest): Promise<Scene> {
  const folder = await tempDir(test);
  const path = join(folder, "file");
  const bytes = seededBytes("page cache", SIZE_BYTES).read(0, SIZE_BYTES);
  const fd = openSync(path, "w+");
  releaseAfter(test, () => closeSync(fd));
  writeSync(fd, bytes);
  fsyncSync(fd);
  const pageCache = openPageCache();
  return {
    bytes,
    path,
    fd,
    isOffered: offersPageCache(folder),
    send: (socket, position, length) =>
      pageCache?.send(socket, fd, position, length),
    read: (target, length, position) =>
      pageCache?.read(fd, target, length, position),
  };
}

/** Sends; reads the bytes back first if the kernel dropped them, as it may at any time. */
function sendLoaded(
  { fd, send }: Scene,
  ...[socket, position, length]: Parameters<Scene["send"]>
): number | undefined {
  for (let left = 5; ; left -= 1) {
    const sent = send(socket, position, length);
    if (sent !== undefined || left === 0) return sent;
    readSync(fd, Buffer.allocUnsafe(length), 0, length, position);
  }
}

function descriptorOf(socket: Parameters<typeof socketDescriptor>[0]): number {
  const fd = socketDescriptor(socket);
  assert.ok(fd !== undefined);
  return fd;
}

void describe("bytes in the page cache", () => {
  void it("reach a socket unchanged from any position", async (test) => {
    const scene = await makeScene(test);
    const { bytes, isOffered } = scene;
    const { near, far } = await connectedSockets(test);
    const parts: Buffer[] = [];
    far.on("data", (part: Buffer) => parts.push(part));
    far.resume();
    const first = 12_345;
    let position = first;
    while (position < SIZE_BYTES) {
      const length = Math.min(3 * MIB + 1, SIZE_BYTES - position);
      const sent = sendLoaded(scene, descriptorOf(near), position, length);
      assert.equal(sent !== undefined, isOffered);
      if (sent === undefined) return;
      position += sent;
      await nextTurn();
    }
    near.end();
    await once(far, "end");
    assert.ok(Buffer.concat(parts).equals(bytes.subarray(first)));
  });

  void it("are sent as far as the socket accepts them, without waiting", async (test) => {
    const scene = await makeScene(test);
    const { isOffered } = scene;
    const { near } = await connectedSockets(test);
    let position = 0;
    for (;;) {
      const left = SIZE_BYTES - position;
      const sent = sendLoaded(scene, descriptorOf(near), position, left);
      assert.equal(sent !== undefined, isOffered);
      if (sent === undefined || sent === 0) break;
      position += sent;
    }
    assert.ok(position < SIZE_BYTES, "a reader of nothing got everything");
  });

  void it("are not sent to a closed connection, and cause no error", async (test) => {
    const { isOffered, send } = await makeScene(test);
    const { near, far } = await connectedSockets(test);
    const socket = descriptorOf(near);
    far.resetAndDestroy();
    await once(far, "close");
    assert.equal(send(socket, 0, MIB), isOffered ? 0 : undefined);
  });
});

void describe("bytes that are read without waiting", () => {
  void it("match the file at any position of the buffer", async (test) => {
    const { bytes, isOffered, read } = await makeScene(test);
    const buffer = Buffer.alloc(10_000);
    for (const position of [0, 4_095, 1_000_000, SIZE_BYTES - 5_000]) {
      const target = buffer.subarray(3_000, 9_000);
      assert.equal(read(target, 5_000, position) ?? false, isOffered);
      if (!isOffered) return;
      const expected = Buffer.alloc(10_000);
      bytes.copy(expected, 3_000, position, position + 5_000);
      assert.ok(buffer.equals(expected), `at ${position}`);
      buffer.fill(0);
    }
  });

  void it("are not read if the file ends before", async (test) => {
    const { read } = await makeScene(test);
    assert.notEqual(read(Buffer.alloc(2), 2, SIZE_BYTES - 1), true);
  });
});

void describe("bytes outside the page cache", () => {
  void it("are neither read nor sent until an ordinary read has loaded them", async (test) => {
    const { path, fd, isOffered, send, read } = await makeScene(test);
    const { near, far } = await connectedSockets(test);
    far.resume();
    const socket = descriptorOf(near);
    // Drops the pages of the file, which was synced, from memory.
    execFileSync("dd", [`if=${path}`, "iflag=nocache", "count=0"], {
      stdio: "ignore",
    });
    assert.notEqual(read(Buffer.alloc(1), 1, 4 * MIB), true);
    assert.equal(send(socket, 8 * MIB, MIB), undefined);
    const target = Buffer.alloc(MIB);
    readSync(fd, target, 0, MIB, 8 * MIB);
    assert.equal(send(socket, 8 * MIB, 64) !== undefined, isOffered);
    assert.equal(send(socket, 16 * MIB, MIB), undefined);
  });
});
