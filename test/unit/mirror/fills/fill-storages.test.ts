import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { StorageError } from "../../../../src/storage/blob-store.ts";
import type { BlobRecords } from "../../../../src/storage/blob-index.ts";
import { FillStorages } from "../../../../src/mirror/fills/fill-storages.ts";
import { type AfterTest } from "../../../support/after-test.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { blobOf, makeStore } from "../../../support/fill-harness.ts";
import { createMetrics } from "../../../../src/telemetry/metrics.ts";
import { createLogger } from "../../../../src/telemetry/logger.ts";

const { digest } = blobOf("storages", 1_000);

/** Room that stays full until a number of fills without readers have ended. */
async function makeStorages(
  test: AfterTest,
  { neededStops, unread }: { neededStops: number; unread: number },
) {
  const { store } = await makeStore(test);
  const asked: number[] = [];
  const lines: string[] = [];
  const clock = new FakeClock();
  let stopped = 0;
  const index: Pick<BlobRecords, "getBlob"> = {
    getBlob: () => Promise.resolve(undefined),
  };
  const storages = new FillStorages({
    store,
    index,
    clock,
    log: createLogger(
      { level: "warn" },
      { write: (line: string) => void lines.push(line) },
    ),
    metrics: createMetrics("test"),
    room: {
      isShort: false,
      reserve: (bytes) => {
        asked.push(bytes);
        return Promise.resolve(
          stopped < neededStops ? undefined : { release: () => {} },
        );
      },
    },
    isSoleUpstream: () => false,
    stopUnread: () => Promise.resolve(++stopped <= unread),
  });
  const place = {
    digest,
    upstream: "a.example",
    storedEnd: () => 0,
    reservation: undefined,
  };
  return { storages, place, asked, lines, clock, stops: () => stopped };
}

void describe("the storage of a fill", () => {
  void it("ends as many fills without readers as it needs to find room", async (test) => {
    const made = await makeStorages(test, { neededStops: 2, unread: 5 });
    const storage = await made.storages.open(made.place, 1_000);
    assert.equal(storage.kind, "writer");
    assert.equal(made.stops(), 2);
    if (storage.kind === "writer") await storage.writer.abort();
  });

  void it("is absent if too few fills have no readers, and other fills continue to store", async (test) => {
    const made = await makeStorages(test, { neededStops: 9, unread: 1 });
    assert.equal((await made.storages.open(made.place, 1_000)).kind, "none");
    assert.equal(made.stops(), 2);
    // Nothing is reserved for an unknown size, and the storage is still in use.
    const storage = await made.storages.open(made.place, undefined);
    assert.equal(storage.kind, "writer");
    if (storage.kind === "writer") await storage.writer.abort();
    await assert.rejects(made.storages.reserve(made.place, undefined), {
      operation: "reserve",
      code: "ENOSPC",
    });
    assert.equal(made.asked.at(-1), 16 * 1024 * 1024);
  });

  void it("reports once a minute that there is no room, and every fault of the disk", async (test) => {
    const made = await makeStorages(test, { neededStops: 9, unread: 0 });
    const noRoom = new StorageError("reserve", "ENOSPC");
    for (let fill = 0; fill < 5; fill++) made.storages.onFault(noRoom);
    assert.equal(made.lines.length, 1);
    made.storages.onFault(new StorageError("append", "EIO"));
    assert.equal(made.lines.length, 2);
    made.clock.advance(60_000);
    for (let fill = 0; fill < 5; fill++) made.storages.onFault(noRoom);
    assert.equal(made.lines.length, 3);
  });
});
