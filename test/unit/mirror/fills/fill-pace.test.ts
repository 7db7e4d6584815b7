import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FillPace } from "../../../../src/mirror/fills/fill-pace.ts";

function makePace() {
  const at = { nowMs: 5, pacedMs: 0 };
  const pace = new FillPace(
    () => at.nowMs,
    () => at.pacedMs,
  );
  return { at, pace };
}

void describe("the pace of a body", () => {
  void it("is a trickle after a minute below 1 KiB/s, not before", () => {
    const { at, pace } = makePace();
    for (let second = 0; second < 60; second++) {
      pace.onBytes(1_000);
      at.nowMs += 1_000;
      assert.equal(pace.isTrickling, false);
    }
    at.nowMs += 1;
    assert.equal(pace.isTrickling, true);
  });

  void it("is not a trickle at 1 KiB/s", () => {
    const { at, pace } = makePace();
    for (let second = 0; second < 600; second++) {
      pace.onBytes(1_024);
      at.nowMs += 1_000;
      assert.equal(pace.isTrickling, false);
    }
  });

  void it("does not count time in which the mirror does not read", () => {
    const { at, pace } = makePace();
    pace.onHeld();
    at.nowMs += 600_000;
    assert.equal(pace.isTrickling, false);
    pace.onFreed();
    assert.equal(pace.isTrickling, false);
    at.nowMs += 59_000;
    assert.equal(pace.isTrickling, false);
    at.nowMs += 2_000;
    assert.equal(pace.isTrickling, true);
  });

  void it("does not count pauses of the bandwidth limit", () => {
    const { at, pace } = makePace();
    at.nowMs += 100_000;
    at.pacedMs += 60_000;
    assert.equal(pace.isTrickling, false);
    at.nowMs += 30_000;
    assert.equal(pace.isTrickling, true);
  });
});
