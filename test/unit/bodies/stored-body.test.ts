import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Verification } from "../../../src/storage/blob-verifier.ts";
import {
  diskLayout,
  layoutFolders,
} from "../../../src/storage/local/root/disk-layout.ts";
import { nodeFileSystem } from "../../../src/storage/local/root/file-system.ts";
import { createFsBlobStore } from "../../../src/storage/local/blobs/fs-blob-store.ts";
import { trackBlobStore } from "../../../src/storage/tracked-blob-store.ts";
import { socketDescriptor } from "../../../src/http/fast-path/socket-descriptor.ts";
import { TAIL_BYTES } from "../../../src/bodies/body.ts";
import { StoredBody } from "../../../src/bodies/stored-body.ts";
import { content } from "../../contract/blob-store-contract.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { connectedSockets } from "../../support/connected-sockets.ts";
import { readAll } from "../../support/fill-harness.ts";
import { FaultyFileSystem } from "../../support/faulty-file-system.ts";
import { offersPageCache } from "../../support/page-cache-offer.ts";
import { tempDir } from "../../support/temp-dir.ts";

const SIZE_BYTES = 8 * 1024 * 1024;
const FIRST = 4_321;
const END = SIZE_BYTES - 1_234;

interface Scene {
  readonly body: StoredBody;
  /** Length of the range. */
  readonly bytes: Buffer;
  readonly faults: FaultyFileSystem;
  readonly isOffered: boolean;
}

/** Opens a range of a stored blob as the mirror does. */
async function makeScene(
  test: AfterTest,
  verification?: Promise<Verification>,
): Promise<Scene> {
  const folder = await tempDir(test);
  const layout = diskLayout(folder);
  for (const each of layoutFolders(layout)) {
    await nodeFileSystem.makeFolder(each);
  }
  const faults = new FaultyFileSystem();
  const { fileSystem } = faults;
  const store = trackBlobStore(createFsBlobStore({ layout, fileSystem }));
  releaseAfter(test, () => store.close());
  const { digest, bytes } = content("stored body", SIZE_BYTES);
  await store.put(digest, bytes);
  const reader = await store.open(digest, SIZE_BYTES);
  assert.ok(reader !== undefined);
  const body = new StoredBody(reader, FIRST, END, undefined, verification);
  releaseAfter(test, () => body.close());
  return {
    body,
    bytes: bytes.subarray(FIRST, END),
    faults,
    isOffered: offersPageCache(folder),
  };
}

void describe("a stored blob's body", () => {
  void it("sends bytes in memory directly to the socket, and reads the rest", async (test) => {
    const { body, bytes, faults, isOffered } = await makeScene(test);
    const { near, far } = await connectedSockets(test);
    const received: Buffer[] = [];
    far.on("data", (part: Buffer) => received.push(part));
    far.resume();
    let readBytes = 0;
    for (;;) {
      const parts = await body.read();
      if (parts === undefined) break;
      for (const part of parts) {
        readBytes += part.length;
        const { promise, resolve } = Promise.withResolvers<void>();
        near.write(part, () => resolve());
        await promise;
      }
      const socket = socketDescriptor(near);
      assert.ok(socket !== undefined);
      while (body.sendTo(socket, 512 * 1024) > 0) await nextTurn();
    }
    near.end();
    await once(far, "end");
    assert.ok(Buffer.concat(received).equals(bytes));
    assert.equal(readBytes + faults.sentBytes, bytes.length);
    assert.equal(faults.sentBytes > 0, isOffered);
  });

  for (const ended of ["right", "unknown", "wrong"] as const) {
    void it(`withholds its tail until the verification ends, and is cut only if the bytes are wrong (${ended})`, async (test) => {
      const verification = Promise.withResolvers<Verification>();
      const { body, bytes, isOffered } = await makeScene(
        test,
        verification.promise,
      );
      const { near, far } = await connectedSockets(test);
      far.resume();
      const socket = socketDescriptor(near);
      assert.ok(socket !== undefined);
      const readable = bytes.length - TAIL_BYTES;
      let sent = 0;
      const offered = isOffered ? readable : 0;
      while (sent < offered) {
        sent += body.sendTo(socket, 512 * 1024);
        await nextTurn();
      }
      assert.equal(body.sendTo(socket, 1), 0);
      const read: Buffer[] = [];
      while (sent < readable) {
        const parts = await body.read();
        for (const part of parts ?? []) {
          read.push(Buffer.from(part));
          sent += part.length;
        }
      }
      assert.equal(sent, readable);
      const rest = readAll(body);
      await nextTurn();
      verification.resolve(ended);
      const { bytes: tail, isBroken } = await rest;
      assert.equal(isBroken, ended === "wrong");
      assert.equal(tail.length, ended === "wrong" ? 0 : TAIL_BYTES);
      assert.ok(tail.equals(bytes.subarray(bytes.length - tail.length)));
    });
  }

  void it("is cut when the verification finds wrong bytes", async (test) => {
    const { body, bytes } = await makeScene(test);
    await body.read();
    body.break();
    const { near } = await connectedSockets(test);
    assert.equal(body.sendTo(socketDescriptor(near) ?? -1, 1), 0);
    const rest = await readAll(body);
    assert.equal(rest.isBroken, true);
    assert.ok(rest.bytes.length < bytes.length);
  });

  void it("sends nothing after it is closed, and closes its file", async (test) => {
    const { body, faults } = await makeScene(test);
    const { near } = await connectedSockets(test);
    const socket = socketDescriptor(near);
    assert.ok(socket !== undefined);
    body.close();
    assert.equal(body.sendTo(socket, 1024), 0);
    assert.equal(faults.sentBytes, 0);
    while (faults.openFiles > 0) await nextTurn();
  });
});
