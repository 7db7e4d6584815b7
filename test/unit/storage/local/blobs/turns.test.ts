import assert from "node:assert/strict";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, it } from "node:test";
import { StorageError } from "../../../../../src/storage/blob-store.ts";
import { StorageProbe } from "../../../../../src/storage/local/root/storage-probe.ts";
import { Turns } from "../../../../../src/storage/local/blobs/turns.ts";

void describe("turns", () => {
  void it("let so many run at once, the others in their order, whatever fails", async () => {
    const turns = new Turns(2);
    const started: number[] = [];
    const ends = Array.from({ length: 5 }, () =>
      Promise.withResolvers<number>(),
    );
    const results = ends.map(({ promise }, i) =>
      turns.take(() => {
        started.push(i);
        return promise;
      }),
    );
    await nextTurn();
    assert.deepEqual(started, [0, 1]);
    ends[1]?.reject(new Error("broken"));
    await assert.rejects(Promise.all(results), /broken/);
    await nextTurn();
    assert.deepEqual(started, [0, 1, 2]);
    for (const [i, { resolve }] of ends.entries()) resolve(i);
    const settled = await Promise.allSettled(results);
    assert.deepEqual(
      settled.map((one) => (one.status === "fulfilled" ? one.value : "failed")),
      [0, "failed", 2, 3, 4],
    );
    await turns.take(async () => started.push(9));
    assert.deepEqual(started, [0, 1, 2, 3, 4, 9]);
  });
});

void describe("a question whether the storage takes writes", () => {
  void it("is asked once at a time, and not waited for where the disk is slow", async () => {
    let asked = 0;
    let answer = Promise.withResolvers<void>();
    const probe = new StorageProbe(
      {
        probe: () => {
          asked += 1;
          return answer.promise;
        },
      },
      1,
    );
    for (let i = 0; i < 3; i += 1) {
      await assert.rejects(probe.probe(), { code: "ETIMEDOUT" });
    }
    assert.equal(asked, 1);
    answer.resolve();
    await nextTurn();
    await probe.probe();
    assert.equal(asked, 2);
    answer = Promise.withResolvers();
    const failed = probe.probe();
    answer.reject(new StorageError("write", "EROFS"));
    await assert.rejects(failed, { code: "EROFS" });
    assert.equal(asked, 3);
  });
});
