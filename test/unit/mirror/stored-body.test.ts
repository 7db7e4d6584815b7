import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { diskLayout, layoutFolders } from "../../../src/cache/disk-layout.ts";
import { nodeFileSystem } from "../../../src/cache/file-system.ts";
import { createFsBlobStore } from "../../../src/cache/fs-blob-store.ts";
import { trackBlobStore } from "../../../src/cache/tracked-blob-store.ts";
import { socketDescriptor } from "../../../src/http/socket-descriptor.ts";
import { StoredBody } from "../../../src/mirror/stored-body.ts";
import { content } from "../../contract/blob-store-contract.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { connectedSockets } from "../../support/connected-sockets.ts";
import { FaultyFileSystem } from "../../support/faulty-file-system.ts";
import { offersPageCache } from "../../support/page-cache-offer.ts";
import { tempDir } from "../../support/temp-dir.ts";

const SIZE_BYTES = 8 * 1024 * 1024;
const FIRST = 4_321;
const END = SIZE_BYTES - 1_234;

interface Scene {
  readonly body: StoredBody;
  /** Of the range. */
  readonly bytes: Buffer;
  readonly faults: FaultyFileSystem;
  readonly isOffered: boolean;
}

/** A range of a stored blob, as the mirror opens it. */
async function makeScene(test: AfterTest): Promise<Scene> {
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
  const body = new StoredBody(reader, FIRST, END);
  releaseAfter(test, () => body.close());
  return {
    body,
    bytes: bytes.subarray(FIRST, END),
    faults,
    isOffered: offersPageCache(folder),
  };
}

void describe("a stored blob's body", () => {
  void it("sends from memory what the socket takes, and reads the rest", async (test) => {
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

  void it("sends nothing once it is closed, and lets go of its file", async (test) => {
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
