import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, fsyncSync, openSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { openPageCache } from "../../../src/cache/page-cache.ts";
import { socketDescriptor } from "../../../src/http/socket-descriptor.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { connectedSockets } from "../../support/connected-sockets.ts";
import { offersPageCache } from "../../support/page-cache-offer.ts";
import { seededBytes } from "../../support/seeded-bytes.ts";
import { tempDir } from "../../support/temp-dir.ts";

const MIB = 1024 * 1024;
const SIZE_BYTES = 24 * MIB;

interface Scene {
  readonly bytes: Buffer;
  readonly path: string;
  readonly fd: number;
  /** Whether anything can be sent on this machine. */
  readonly isOffered: boolean;
  /** As {@link PageCache.send}; undefined also where there is no page cache. */
  readonly send: (
    socket: number,
    position: number,
    length: number,
  ) => number | undefined;
}

/** A file that was written and is in memory. */
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
  };
}

function descriptorOf(socket: Parameters<typeof socketDescriptor>[0]): number {
  const fd = socketDescriptor(socket);
  assert.ok(fd !== undefined);
  return fd;
}

void describe("bytes that the kernel has in memory", () => {
  void it("reach a socket as they are in the file, from any position on", async (test) => {
    const { bytes, isOffered, send } = await makeScene(test);
    const { near, far } = await connectedSockets(test);
    const parts: Buffer[] = [];
    far.on("data", (part: Buffer) => parts.push(part));
    far.resume();
    const first = 12_345;
    let position = first;
    while (position < SIZE_BYTES) {
      const length = Math.min(3 * MIB + 1, SIZE_BYTES - position);
      const sent = send(descriptorOf(near), position, length);
      assert.equal(sent !== undefined, isOffered);
      if (sent === undefined) return;
      position += sent;
      await nextTurn();
    }
    near.end();
    await once(far, "end");
    assert.ok(Buffer.concat(parts).equals(bytes.subarray(first)));
  });

  void it("are sent as far as the socket takes them, without a wait", async (test) => {
    const { isOffered, send } = await makeScene(test);
    const { near } = await connectedSockets(test);
    let position = 0;
    for (;;) {
      const sent = send(descriptorOf(near), position, SIZE_BYTES - position);
      assert.equal(sent !== undefined, isOffered);
      if (sent === undefined || sent === 0) break;
      position += sent;
    }
    assert.ok(position < SIZE_BYTES, "a reader of nothing got everything");
  });

  void it("are sent to nobody where the other end is gone, and no error ends the process", async (test) => {
    const { isOffered, send } = await makeScene(test);
    const { near, far } = await connectedSockets(test);
    const socket = descriptorOf(near);
    far.resetAndDestroy();
    await once(far, "close");
    assert.equal(send(socket, 0, MIB), isOffered ? 0 : undefined);
  });
});

void describe("bytes that are on the disk only", () => {
  void it("are not sent until somebody has read them", async (test) => {
    const { path, fd, isOffered, send } = await makeScene(test);
    const { near, far } = await connectedSockets(test);
    far.resume();
    const socket = descriptorOf(near);
    // Drops what is in memory of the file, which was synced.
    execFileSync("dd", [`if=${path}`, "iflag=nocache", "count=0"], {
      stdio: "ignore",
    });
    assert.equal(send(socket, 8 * MIB, MIB), undefined);
    const target = Buffer.alloc(MIB);
    readSync(fd, target, 0, MIB, 8 * MIB);
    assert.equal(send(socket, 8 * MIB, 64) !== undefined, isOffered);
    assert.equal(send(socket, 16 * MIB, MIB), undefined);
  });
});
