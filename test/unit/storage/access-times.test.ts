import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AccessTimes, type Uses } from "../../../src/storage/access-times.ts";
import { ManualSchedule } from "../../support/manual-schedule.ts";

void describe("access times", () => {
  void it("are written within 5 s, the newest of each", () => {
    const schedule = new ManualSchedule();
    const written: Uses[] = [];
    const times = new AccessTimes((uses) => written.push(uses), schedule.start);
    times.note("a", 10);
    times.note("b", 20);
    times.note("a", 30);
    times.note("b", 5);
    assert.deepEqual(written, []);
    assert.equal(schedule.delaysMs.length, 1);
    assert((schedule.delaysMs[0] ?? Number.NaN) <= 5_000);
    schedule.runNext();
    assert.deepEqual(written, [
      [
        ["a", 30],
        ["b", 20],
      ],
    ]);
    assert.deepEqual(schedule.delaysMs, []);
    times.note("c", 1);
    schedule.runNext();
    assert.equal(written.length, 2);
  });

  void it("are written in slices", () => {
    const schedule = new ManualSchedule();
    const rows: number[] = [];
    const times = new AccessTimes(
      (uses) => rows.push(uses.length),
      schedule.start,
    );
    for (let i = 0; i < 240; i += 1) times.note(`key ${i}`, i);
    while (schedule.delaysMs.length > 0) schedule.runNext();
    assert.deepEqual(rows, [100, 100, 40]);
  });

  void it("are written immediately on a flush", async () => {
    const schedule = new ManualSchedule();
    const rows: number[] = [];
    const times = new AccessTimes(
      (uses) => rows.push(uses.length),
      schedule.start,
    );
    await times.settle();
    for (let i = 0; i < 240; i += 1) times.note(`key ${i}`, i);
    await times.settle();
    assert.deepEqual(rows, [100, 100, 40]);
  });

  void it("are bounded to 20 000 entries in memory", () => {
    const schedule = new ManualSchedule();
    let rows = 0;
    const times = new AccessTimes((uses) => {
      rows += uses.length;
    }, schedule.start);
    for (let i = 0; i < 100_000; i += 1) times.note(`key ${i}`, i);
    assert(rows >= 80_000 && rows < 81_000);
    times.flush();
    assert.equal(rows, 100_000);
  });

  void it("are dropped when they can't be written", () => {
    const schedule = new ManualSchedule();
    let calls = 0;
    const times = new AccessTimes(() => {
      calls += 1;
      throw new Error("disk full");
    }, schedule.start);
    times.note("a", 1);
    schedule.runNext();
    times.note("b", 1);
    times.flush();
    times.flush();
    assert.equal(calls, 2);
    assert.deepEqual(schedule.delaysMs, []);
  });
});
