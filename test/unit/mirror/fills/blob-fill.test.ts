import assert from "node:assert/strict";
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { Socket } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import {
  type FileSystem,
  nodeFileSystem,
} from "../../../../src/storage/local/root/file-system.ts";
import { socketDescriptor } from "../../../../src/http/fast-path/socket-descriptor.ts";
import { TAIL_BYTES } from "../../../../src/bodies/body.ts";
import type { BlobFill } from "../../../../src/mirror/fills/blob-fill.ts";
import { PartialRefused } from "../../../../src/mirror/fills/fill-download.ts";
import { digestOf } from "../../../../src/oci/digest.ts";
import {
  readIntoSpareBuffers,
  SOCKET_READ_BYTES,
} from "../../../../src/wire/socket-buffers.ts";
import { connectedSockets } from "../../../support/connected-sockets.ts";
import { offersPageCache } from "../../../support/page-cache-offer.ts";
import {
  blobOf,
  failure,
  HandFedUpstream,
  makeStore,
  readAll,
  readUpTo,
  startFill,
} from "../../../support/fill-harness.ts";

const MIB = 1024 * 1024;

async function partialsOf(root: string): Promise<string[]> {
  return (await readdir(join(root, "partial"))).filter((name) =>
    name.startsWith("sha256"),
  );
}

async function received(fill: BlobFill, bytes: number): Promise<void> {
  while (fill.receivedBytes < bytes) await fill.changed();
}

/** A file system whose writes fail after a number of bytes. */
function fullAfter(limitBytes: number): FileSystem {
  let written = 0;
  return {
    ...nodeFileSystem,
    writev: async (fd, chunks, position) => {
      if (written >= limitBytes) {
        throw Object.assign(new Error("no space"), { code: "ENOSPC" });
      }
      const count = await nodeFileSystem.writev(fd, chunks, position);
      written += count;
      return count;
    },
  };
}

void describe("a fill", () => {
  void it("serves every byte to its readers, publishes the blob and leaves no partial", async (test) => {
    const { store, root } = await makeStore(test);
    const { bytes, digest } = blobOf("whole", 3 * MIB + 5);
    const { fill, upstream, rows } = await startFill(store, digest);
    const readers = [fill.openReader(), fill.openReader()];
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    const reading = readers.map((reader) => readAll(reader));
    const body = await upstream.body();
    body.feed(bytes);
    body.finish();
    for (const read of await Promise.all(reading)) {
      assert.equal(read.isBroken, false);
      assert.deepEqual(read.bytes, bytes);
    }
    const end = await fill.ended;
    assert.equal(end.outcome, "stored");
    assert.deepEqual(rows, [bytes.length]);
    assert.equal(upstream.opened.length, 1);
    assert.deepEqual(await partialsOf(root), []);
    assert.deepEqual(await store.read(digest, bytes.length), bytes);
  });

  void it("is written in whole steps, and the remainder at the end", async (test) => {
    const writes: { position: number; bytes: number }[] = [];
    const firstWrite = Promise.withResolvers<void>();
    const { store } = await makeStore(test, {
      ...nodeFileSystem,
      writev: (fd, chunks, position) => {
        const bytes = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
        writes.push({ position, bytes });
        firstWrite.resolve();
        return nodeFileSystem.writev(fd, chunks, position);
      },
    });
    const { bytes, digest } = blobOf("steps", 5 * MIB + 5);
    const { fill, upstream } = await startFill(store, digest, {
      windowBytes: () => 4 * MIB,
    });
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    const body = await upstream.body();
    body.feed(bytes.subarray(0, 3 * MIB));
    await received(fill, 3 * MIB);
    await firstWrite.promise;
    body.feed(bytes.subarray(3 * MIB));
    body.finish();
    assert.equal((await fill.ended).outcome, "stored");
    assert.deepEqual(writes, [
      { position: 0, bytes: 2 * MIB },
      { position: 2 * MIB, bytes: 2 * MIB },
      { position: 4 * MIB, bytes: MIB + 5 },
    ]);
  });

  void it("withholds the tail until the bytes are verified", async (test) => {
    const { store } = await makeStore(test);
    const { bytes, digest } = blobOf("tail", 2 * MIB);
    const { fill, upstream } = await startFill(store, digest);
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    const reader = fill.openReader();
    const body = await upstream.body();
    body.feed(bytes.subarray(0, -1));
    const before = await readUpTo(reader, bytes.length - TAIL_BYTES);
    assert.equal(before.length, bytes.length - TAIL_BYTES);
    assert.equal(fill.readableEnd, bytes.length - TAIL_BYTES);
    body.feed(bytes.subarray(-1));
    body.finish();
    const tail = await readAll(reader);
    assert.deepEqual(Buffer.concat([before, tail.bytes]), bytes);
    assert.equal((await fill.ended).outcome, "stored");
  });

  for (const [name, sizeKnown] of [
    ["of known length", true],
    ["of unknown length", false],
  ] as const) {
    void it(`never completes a body ${name} whose last byte is wrong`, async (test) => {
      const { store, root } = await makeStore(test);
      const { bytes, digest } = blobOf("wrong", 2 * MIB);
      const wrong = Buffer.from(bytes);
      wrong[wrong.length - 1] = (wrong.at(-1) ?? 0) ^ 1;
      const { fill, upstream, rows } = await startFill(store, digest);
      const reader = fill.openReader();
      upstream.answer(() => (sizeKnown ? { sizeBytes: wrong.length } : {}));
      // Without a length, a further request finds out whether more bytes follow.
      upstream.answer(() => ({ sizeBytes: wrong.length }));
      const reading = readAll(reader);
      const body = await upstream.body();
      body.feed(wrong);
      body.finish();
      if (!sizeKnown) {
        const again = await upstream.body();
        again.feed(wrong.subarray(-1));
        again.finish();
      }
      const read = await reading;
      assert.equal(read.isBroken, true);
      assert.ok(read.bytes.length <= bytes.length - TAIL_BYTES);
      assert.equal((await fill.ended).outcome, "mismatch");
      assert.deepEqual(rows, []);
      assert.deepEqual(await partialsOf(root), []);
      assert.equal(await store.open(digest, bytes.length), undefined);
    });

    void it(`resumes a broken body ${name} and no reader notices`, async (test) => {
      const { store } = await makeStore(test);
      const { bytes, digest } = blobOf("broken", 4 * MIB);
      const half = bytes.length / 2;
      const { fill, upstream } = await startFill(store, digest);
      const reader = fill.openReader();
      upstream.answer(() => (sizeKnown ? { sizeBytes: bytes.length } : {}));
      upstream.answer(() => (sizeKnown ? { sizeBytes: bytes.length } : {}));
      const reading = readAll(reader);
      const first = await upstream.body();
      first.feed(bytes.subarray(0, half));
      await received(fill, half);
      // A body without length that is cut looks like one that has ended.
      if (sizeKnown) first.break();
      else first.finish();
      const second = await upstream.body();
      second.feed(bytes.subarray(upstream.opened[1]?.offset ?? 0));
      second.finish();
      const read = await reading;
      assert.deepEqual(read, { bytes, isBroken: false });
      const end = await fill.ended;
      assert.equal(end.outcome, "stored");
      assert.equal(end.resumes, 1);
      assert.ok((upstream.opened[1]?.offset ?? 0) >= half - 1);
    });
  }

  void it("skips the received bytes if the upstream restarts the body", async (test) => {
    const { store } = await makeStore(test);
    const { bytes, digest } = blobOf("over", 2 * MIB);
    const { fill, upstream } = await startFill(store, digest);
    const reading = readAll(fill.openReader());
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    upstream.answer(() => ({
      sizeBytes: bytes.length,
      offset: 0,
      status: 200,
    }));
    const first = await upstream.body();
    first.feed(bytes.subarray(0, MIB));
    await received(fill, MIB);
    first.break();
    const second = await upstream.body();
    second.feed(bytes);
    second.finish();
    assert.deepEqual(await reading, { bytes, isBroken: false });
    assert.equal((await fill.ended).outcome, "stored");
  });

  void it("rejects for every waiter when the upstream sends no body", async (test) => {
    const { store, root } = await makeStore(test);
    const { digest } = blobOf("none", 10);
    const upstream = new HandFedUpstream();
    upstream.answer(() => failure("not-found"));
    const { fill } = await startFill(store, digest, {}, upstream);
    const reader = fill.openReader();
    await assert.rejects(fill.head, { kind: "not-found" });
    await assert.rejects(fill.head, { kind: "not-found" });
    reader.close();
    assert.equal((await fill.ended).outcome, "broken");
    assert.deepEqual(await partialsOf(root), []);
  });

  void it("gives up after requests without progress, ends its readers and keeps the received bytes", async (test) => {
    const { store, root } = await makeStore(test);
    const { bytes, digest } = blobOf("dead", 2 * MIB);
    const { fill, upstream } = await startFill(store, digest);
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    const body = await upstream.body();
    body.feed(bytes.subarray(0, MIB));
    await received(fill, MIB);
    upstream.answer(() => failure("not-found"));
    const reading = readAll(fill.openReader());
    body.break();
    const read = await reading;
    assert.equal(read.isBroken, true);
    assert.equal((await fill.ended).outcome, "broken");
    assert.deepEqual(await partialsOf(root), [digest.replace(":", "-")]);
    // The next fill requests the rest only.
    const next = await startFill(store, digest, {
      expectedBytes: bytes.length,
    });
    next.upstream.answer(() => ({ sizeBytes: bytes.length }));
    const again = readAll(next.fill.openReader());
    const rest = await next.upstream.body();
    assert.deepEqual(
      next.upstream.opened.map(({ offset }) => offset),
      [MIB],
    );
    rest.feed(bytes.subarray(MIB));
    rest.finish();
    assert.deepEqual(await again, { bytes, isBroken: false });
    assert.equal((await next.fill.ended).outcome, "stored");
  });

  void it("requests the last byte again if an earlier fill left all of them", async (test) => {
    const { store } = await makeStore(test);
    const { bytes, digest } = blobOf("all", MIB);
    const left = await store.beginWrite({ kind: "fill", digest });
    await left.append([bytes]);
    await left.suspend();
    const { fill, upstream } = await startFill(store, digest);
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    const reading = readAll(fill.openReader());
    const body = await upstream.body();
    body.feed(bytes.subarray(-1));
    body.finish();
    assert.deepEqual(await reading, { bytes, isBroken: false });
    assert.equal(upstream.opened[0]?.offset, bytes.length - 1);
    assert.equal((await fill.ended).outcome, "stored");
  });

  void it("deletes a partial that is longer than the upstream's blob", async (test) => {
    const { store, root } = await makeStore(test);
    const { bytes, digest } = blobOf("long", MIB);
    const left = await store.beginWrite({ kind: "fill", digest });
    await left.append([bytes, bytes]);
    await left.suspend();
    const { fill, upstream } = await startFill(store, digest);
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    await assert.rejects(fill.head, PartialRefused);
    assert.equal((await fill.ended).outcome, "refused");
    assert.deepEqual(await partialsOf(root), []);
  });

  void it("serves a slow reader from the storage and a fast one from memory", async (test) => {
    const { store } = await makeStore(test);
    const { bytes, digest } = blobOf("slow", 8 * MIB);
    const { fill, upstream } = await startFill(store, digest);
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    const slow = fill.openReader();
    const fast = fill.openReader();
    const first = await Promise.all([
      readUpTo(slow, 1),
      upstream.body().then((body) => {
        body.feed(bytes);
        body.finish();
      }),
    ]);
    const fastRead = await readAll(fast);
    assert.deepEqual(fastRead.bytes, bytes);
    assert.equal((await fill.ended).outcome, "stored");
    const rest = await readAll(slow);
    assert.deepEqual(Buffer.concat([first[0], rest.bytes]), bytes);
    assert.equal(rest.isBroken, false);
    assert.equal(upstream.opened.length, 1);
  });

  void it("sends stored bytes to a socket, but not the tail before it is verified", async (test) => {
    const { store, root } = await makeStore(test);
    // The last whole step of writing ends within the tail.
    const { bytes, digest } = blobOf("sent", 6 * MIB + TAIL_BYTES / 2);
    const { fill, upstream } = await startFill(store, digest);
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    const body = await upstream.body();
    // All but the last byte, which would start the verification.
    body.feed(bytes.subarray(0, -1));
    while (fill.storedEnd < 6 * MIB) await nextTurn();
    await fill.openFile();
    const reader = fill.openReader();
    const { near, far } = await connectedSockets(test);
    const sent: Buffer[] = [];
    far.on("data", (part: Buffer) => sent.push(part));
    far.resume();
    const sendAll = async (until: number): Promise<void> => {
      let turns = 0;
      while (reader.position < until && turns++ < 10_000) {
        reader.sendTo(socketDescriptor(near) ?? -1, MIB);
        await nextTurn();
      }
    };
    const readable = bytes.length - TAIL_BYTES;
    const isOffered = offersPageCache(root);
    await sendAll(readable);
    assert.equal(reader.position, isOffered ? readable : 0);
    assert.equal(reader.sendTo(socketDescriptor(near) ?? -1, MIB), 0);
    body.feed(bytes.subarray(-1));
    body.finish();
    assert.equal((await fill.ended).outcome, "stored");
    await sendAll(bytes.length);
    assert.equal(reader.position, isOffered ? bytes.length : 0);
    const rest = await readAll(reader);
    near.end();
    await once(far, "end");
    assert.ok(Buffer.concat([...sent, rest.bytes]).equals(bytes));
  });

  void it("stores and drops the bytes of its window when the window shrinks", async (test) => {
    const { store } = await makeStore(test);
    const { bytes, digest } = blobOf("shrinks", 6 * MIB);
    let windowBytes = 4 * MIB;
    const { fill, upstream } = await startFill(store, digest, {
      windowBytes: () => windowBytes,
    });
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    const body = await upstream.body();
    // Less than one step of writing.
    body.feed(bytes.subarray(0, 2 * MIB - 1));
    while (fill.receivedBytes < 2 * MIB - 1) await nextTurn();
    assert.equal(fill.storedEnd, 0);
    assert.ok(fill.fromWindow(0, MIB, MIB));
    windowBytes = 64 * 1024;
    fill.onSmallerWindow();
    while (fill.storedEnd < 2 * MIB - 64 * 1024) await nextTurn();
    assert.equal(fill.fromWindow(MIB, 2 * MIB, 1), undefined);
    body.feed(bytes.subarray(2 * MIB - 1));
    assert.equal((await fill.ended).outcome, "stored");
  });

  void it("reuses the memory of stored bytes, but not of bytes that a reader still uses", async (test) => {
    const { store } = await makeStore(test);
    const { bytes, digest } = blobOf("reused", 24 * SOCKET_READ_BYTES);
    const { fill, upstream } = await startFill(store, digest);
    const holding = fill.openReader();
    const held = holding.read();
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    const body = await upstream.body();
    const used = new Set<ArrayBufferLike>();
    const feed = async (at: number): Promise<void> => {
      const socket = new Socket();
      const target = readIntoSpareBuffers.buffer();
      used.add(target.buffer);
      target.set(bytes.subarray(at, at + SOCKET_READ_BYTES));
      readIntoSpareBuffers.callback.call(socket, SOCKET_READ_BYTES, target);
      body.push(socket.read());
      await received(fill, at + SOCKET_READ_BYTES);
    };
    await feed(0);
    const parts = (await held) ?? [];
    for (let at = SOCKET_READ_BYTES; at < bytes.length;) {
      await feed(at);
      at += SOCKET_READ_BYTES;
      // Whole steps are stored one after another; the memory before them is then free.
      while (fill.storedEnd < at - SOCKET_READ_BYTES * 2) await nextTurn();
    }
    body.finish();
    assert.equal((await fill.ended).outcome, "stored");
    const first = Buffer.concat(parts);
    assert.ok(first.length > 0);
    assert.ok(used.size < 24, String(used.size));
    assert.ok(first.equals(bytes.subarray(0, first.length)));
    const rest = await readAll(holding);
    assert.ok(Buffer.concat([first, rest.bytes]).equals(bytes));
    assert.equal((await store.read(digest, bytes.length))?.equals(bytes), true);
  });

  void it("cannot be joined once it is being suspended", async (test) => {
    const { store } = await makeStore(test);
    const { bytes, digest } = blobOf("joined late", 200_000);
    const { fill, upstream } = await startFill(store, digest);
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    await fill.head;
    assert.equal(fill.isJoinable, true);
    const suspended = fill.suspend();
    assert.equal(fill.isJoinable, false);
    await suspended;
  });

  void it("continues when its last reader leaves, and keeps the received bytes when suspended", async (test) => {
    const { store, root } = await makeStore(test);
    const { bytes, digest } = blobOf("left", 2 * MIB);
    const { fill, upstream } = await startFill(store, digest);
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    const reader = fill.openReader();
    const body = await upstream.body();
    body.feed(bytes.subarray(0, MIB));
    await readUpTo(reader, 1);
    reader.close();
    assert.equal(fill.isJoinable, true);
    await fill.suspend();
    const end = await fill.ended;
    assert.equal(end.outcome, "suspended");
    assert.deepEqual(await partialsOf(root), [digest.replace(":", "-")]);
    assert.equal(body.destroyed, true);
    const kept = await store.beginWrite({ kind: "fill", digest });
    assert.equal(kept.writtenBytes, MIB);
    await kept.abort();
  });

  void it("lets the digest decide if upstream and descriptor state different sizes", async (test) => {
    const { store } = await makeStore(test);
    const { bytes, digest } = blobOf("size", MIB);
    const { fill, upstream, rows } = await startFill(store, digest, {
      expectedBytes: bytes.length + 7,
    });
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    const reading = readAll(fill.openReader());
    const body = await upstream.body();
    body.feed(bytes);
    body.finish();
    assert.deepEqual(await reading, { bytes, isBroken: false });
    assert.equal((await fill.ended).outcome, "stored");
    assert.deepEqual(rows, [bytes.length]);
  });

  void it("stores the empty blob", async (test) => {
    const { store } = await makeStore(test);
    const digest = digestOf(Buffer.alloc(0));
    const { fill, upstream, rows } = await startFill(store, digest);
    upstream.answer(() => ({ sizeBytes: 0 }));
    const reading = readAll(fill.openReader());
    (await upstream.body()).finish();
    assert.deepEqual(await reading, {
      bytes: Buffer.alloc(0),
      isBroken: false,
    });
    assert.equal((await fill.ended).outcome, "stored");
    assert.deepEqual(rows, [0]);
  });
});

void describe("a fill whose storage fails", () => {
  void it("passes verified bytes through to readers near the newest byte", async (test) => {
    const { store, root } = await makeStore(test, fullAfter(2 * MIB));
    const { bytes, digest } = blobOf("full", 8 * MIB);
    const { fill, upstream, faults, rows } = await startFill(store, digest);
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    const reading = readAll(fill.openReader());
    const body = await upstream.body();
    body.feed(bytes);
    body.finish();
    assert.deepEqual(await reading, { bytes, isBroken: false });
    assert.equal((await fill.ended).outcome, "passed");
    assert.equal(faults.length, 1);
    assert.deepEqual(rows, []);
    assert.equal(upstream.opened.length, 1);
    assert.deepEqual(await partialsOf(root), []);
  });

  void it("never completes wrong bytes that are passed through", async (test) => {
    const { store } = await makeStore(test, fullAfter(MIB));
    const { bytes, digest } = blobOf("full-wrong", 6 * MIB);
    const wrong = Buffer.from(bytes);
    wrong[5 * MIB] = (wrong[5 * MIB] ?? 0) ^ 1;
    const { fill, upstream } = await startFill(store, digest);
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    const reading = readAll(fill.openReader());
    const body = await upstream.body();
    body.feed(wrong);
    body.finish();
    const read = await reading;
    assert.equal(read.isBroken, true);
    assert.ok(read.bytes.length <= bytes.length - TAIL_BYTES);
    assert.equal((await fill.ended).outcome, "mismatch");
  });

  for (const [name, spoil] of [
    ["right", false],
    ["wrong", true],
  ] as const) {
    void it(`continues a reader that was too slow ${name} with a verified body of its own`, async (test) => {
      const { store } = await makeStore(test, fullAfter(MIB));
      const { bytes, digest } = blobOf("behind", 12 * MIB);
      const { fill, upstream } = await startFill(store, digest);
      upstream.answer(() => ({ sizeBytes: bytes.length }));
      const slow = fill.openReader();
      const fast = readAll(fill.openReader());
      const body = await upstream.body();
      body.feed(bytes.subarray(0, MIB));
      const start = await readUpTo(slow, 1);
      body.feed(bytes.subarray(MIB));
      body.finish();
      assert.deepEqual(await fast, { bytes, isBroken: false });
      const own = Buffer.from(bytes);
      if (spoil) own[11 * MIB] = (own[11 * MIB] ?? 0) ^ 1;
      upstream.answer(() => ({ sizeBytes: bytes.length }));
      const reading = readAll(slow);
      const second = await upstream.body();
      const offset = upstream.opened[1]?.offset ?? -1;
      assert.ok(offset >= MIB, "it goes on where the storage ended");
      second.feed(own.subarray(offset));
      second.finish();
      const rest = await reading;
      assert.equal(rest.isBroken, spoil);
      const all = Buffer.concat([start, rest.bytes]);
      if (spoil) assert.ok(all.length <= bytes.length - TAIL_BYTES);
      else assert.deepEqual(all, bytes);
      assert.equal(upstream.opened.length, 2);
    });
  }

  void it("ends when its bytes are neither stored nor read", async (test) => {
    const { store } = await makeStore(test);
    const { bytes, digest } = blobOf("unread", 8 * MIB);
    const { fill, upstream } = await startFill(store, digest, {
      storage: {
        kind: "none",
        hash: store.createHash("sha256", undefined),
        offset: 0,
      },
    });
    upstream.answer(() => ({ sizeBytes: bytes.length }));
    const reader = fill.openReader();
    const body = await upstream.body();
    body.feed(bytes.subarray(0, MIB));
    await readUpTo(reader, 1);
    reader.close();
    assert.equal((await fill.ended).outcome, "broken");
    assert.equal(body.destroyed, true);
  });
});
