import assert from "node:assert/strict";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, it } from "node:test";
import { Semaphore } from "../../../src/wire/semaphore.ts";

void describe("Semaphore", () => {
  void it("runs a bounded number of tasks and starts the others in order, whatever fails", async () => {
    const semaphore = new Semaphore(2);
    const started: number[] = [];
    const ends = Array.from({ length: 5 }, () =>
      Promise.withResolvers<number>(),
    );
    const results = ends.map(({ promise }, i) =>
      semaphore.run(() => {
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
    await semaphore.run(async () => started.push(9));
    assert.deepEqual(started, [0, 1, 2, 3, 4, 9]);
  });

  void it("rejects with the signal's reason and admits the next caller", async () => {
    const semaphore = new Semaphore(1);
    const release = await semaphore.acquire(new AbortController().signal);
    const leaving = new AbortController();
    const left = semaphore.acquire(leaving.signal);
    const next = semaphore.acquire(new AbortController().signal);
    leaving.abort(new Error("too late"));
    await assert.rejects(left, /too late/);
    await assert.rejects(semaphore.acquire(leaving.signal), /too late/);
    assert.equal(semaphore.waiting, 1);
    release();
    (await next)();
    assert.equal(semaphore.held, 0);
  });
});
