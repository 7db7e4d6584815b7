import assert from "node:assert/strict";
import { writeSync } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  type FileSystem,
  nodeFileSystem,
} from "../../../../src/storage/local/root/file-system.ts";
import {
  blobOf,
  makeStore,
  readAll,
  readUpTo,
  startFill,
} from "../../../support/fill-harness.ts";

const MIB = 1024 * 1024;

/** Changes the bytes of the file at a position once, right after they are written. */
function changingAt(at: number): FileSystem {
  let isChanged = false;
  return {
    ...nodeFileSystem,
    writev: async (fd, chunks, position) => {
      const count = await nodeFileSystem.writev(fd, chunks, position);
      if (!isChanged && position <= at && at < position + count) {
        isChanged = true;
        writeSync(fd, Buffer.from("changed"), 0, 7, at);
      }
      return count;
    },
  };
}

async function partialsOf(root: string): Promise<string[]> {
  return (await readdir(join(root, "partial"))).filter((name) =>
    name.startsWith("sha256"),
  );
}

void describe("a partial that is changed on disk before it is hashed", () => {
  for (const { name, sizeBytes, at } of [
    { name: "a small blob's", sizeBytes: 500_000, at: 100_000 },
    {
      name: "the last bytes of a small blob's",
      sizeBytes: 500_000,
      at: 499_990,
    },
    { name: "a large blob's", sizeBytes: 12 * MIB, at: 3 * MIB },
    {
      name: "the last bytes of a large blob's",
      sizeBytes: 12 * MIB,
      at: 12 * MIB - 10,
    },
  ]) {
    void it(`${name}: is never published, and no reader gets a complete body`, async (test) => {
      const { store, root } = await makeStore(test, changingAt(at));
      const { bytes, digest } = blobOf(name, sizeBytes);
      const expectedBytes = sizeBytes;
      const { fill, upstream, rows } = await startFill(store, digest, {
        expectedBytes,
      });
      upstream.answer(() => ({ sizeBytes }));
      const [first, behind] = [fill.openReader(), fill.openReader()];
      const reading = readAll(first);
      const body = await upstream.body();
      body.feed(bytes);
      // One reader stays at the start and continues from the file.
      const start = await readUpTo(behind, 1);
      body.finish();
      const end = await fill.ended;
      assert.equal(end.outcome, "mismatch");
      const reads = await Promise.all([reading, readAll(behind)]);
      assert.deepEqual(
        reads.map(({ isBroken }) => isBroken),
        [true, true],
      );
      assert.ok(reads[0].bytes.length < sizeBytes);
      assert.ok(start.length + reads[1].bytes.length < sizeBytes);
      assert.deepEqual(rows, []);
      assert.equal(await store.open(digest, sizeBytes), undefined);
      assert.deepEqual(await partialsOf(root), []);

      const again = await startFill(store, digest, { expectedBytes });
      again.upstream.answer(() => ({ sizeBytes }));
      const second = await again.upstream.body();
      const whole = readAll(again.fill.openReader());
      second.feed(bytes);
      second.finish();
      assert.deepEqual((await whole).bytes, bytes);
      assert.equal((await again.fill.ended).outcome, "stored");
    });
  }

  for (const sizeBytes of [900_000, 6 * MIB]) {
    void it(`is detected when ${sizeBytes} bytes are resumed`, async (test) => {
      const { store, root } = await makeStore(test);
      const { bytes, digest } = blobOf(`left ${sizeBytes}`, sizeBytes);
      const options = { expectedBytes: sizeBytes };
      const left = await startFill(store, digest, options);
      left.upstream.answer(() => ({ sizeBytes }));
      (await left.upstream.body()).feed(bytes.subarray(0, sizeBytes / 2));
      while (left.fill.receivedBytes < sizeBytes / 2) await left.fill.changed();
      await left.fill.suspend();
      const [name] = await partialsOf(root);
      const file = await open(join(root, "partial", name ?? ""), "r+");
      await file.write("changed", 1_000);
      await file.close();

      const resumed = await startFill(store, digest, options);
      resumed.upstream.answer(() => ({ sizeBytes }));
      const reading = readAll(resumed.fill.openReader());
      const rest = await resumed.upstream.body();
      assert.equal(resumed.upstream.opened[0]?.offset, sizeBytes / 2);
      rest.feed(bytes.subarray(sizeBytes / 2));
      rest.finish();
      assert.equal((await resumed.fill.ended).outcome, "mismatch");
      assert.equal((await reading).isBroken, true);
      assert.deepEqual(resumed.rows, []);
      assert.deepEqual(await partialsOf(root), []);
    });
  }
});
