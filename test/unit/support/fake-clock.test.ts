import assert from "node:assert/strict";
import { it } from "node:test";
import { FakeClock } from "../../support/fake-clock.ts";

void it("a fake clock moves only when it is advanced or set, and its wall time apart from its monotonic time", () => {
  const clock = new FakeClock(1_000);
  clock.advance(250);
  assert.deepEqual([clock.nowMs(), clock.monotonicMs()], [1_250, 250]);
  clock.setWall(10);
  assert.deepEqual([clock.nowMs(), clock.monotonicMs()], [10, 250]);
  assert.throws(() => {
    clock.advance(-1);
  }, RangeError);
});
