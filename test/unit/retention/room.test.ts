import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Room } from "../../../src/retention/room.ts";
import type { StorageSpace } from "../../../src/storage/storage.ts";

const GIB = 1024 ** 3;

function openRoom(
  space: StorageSpace | undefined,
  isFitting: boolean,
  isOutOfRoom: () => boolean = () => false,
) {
  const demands: number[] = [];
  const room = new Room({
    evictor: {
      makeRoom: async (bytes) => {
        demands.push(bytes);
        return isFitting;
      },
    },
    readSpace: async () => space,
    minFreeBytes: ({ totalBytes }) => totalBytes / 10,
    isOutOfRoom,
  });
  return { room, demands };
}

void describe("room for uploads", () => {
  const space = { totalBytes: 100 * GIB, freeBytes: 20 * GIB };

  void it("is there above maxSize, while a fill gets none", async () => {
    const { room, demands } = openRoom(space, false);
    assert.equal(await room.reserve(GIB, () => GIB), undefined);
    assert.equal(room.isShort, true);
    assert.ok(await room.uploads.reserve(GIB, () => GIB));
    assert.equal(room.isShort, false);
    // Mirrored images were to make room for both.
    assert.deepEqual(demands, [GIB, GIB]);
  });

  void it("ends at minFree, with what other requests still expect", async () => {
    const { room } = openRoom(space, false);
    const first = await room.uploads.reserve(6 * GIB, () => 6 * GIB);
    assert.ok(first);
    assert.equal(await room.uploads.reserve(6 * GIB, () => 6 * GIB), undefined);
    assert.equal(room.isShort, true);
    first.release();
    assert.ok(await room.uploads.reserve(6 * GIB, () => 6 * GIB));
  });

  void it("is not there while the reserve of the index is used up: the rest is for deletions", async () => {
    let isOutOfRoom = true;
    const { room, demands } = openRoom(space, true, () => isOutOfRoom);
    assert.equal(await room.uploads.reserve(GIB, () => GIB), undefined);
    // Mirrored images are evicted nevertheless.
    assert.deepEqual(demands, [GIB]);
    isOutOfRoom = false;
    assert.ok(await room.uploads.reserve(GIB, () => GIB));
  });

  void it("is not limited if the system does not report its space", async () => {
    const { room } = openRoom(undefined, false);
    assert.ok(await room.uploads.reserve(GIB, () => GIB));
  });
});
