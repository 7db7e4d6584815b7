import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Bandwidth } from "../../../src/wire/bandwidth.ts";

void describe("Bandwidth", () => {
  void it("never pauses a body without a limit", () => {
    const bandwidth = new Bandwidth(Infinity);
    assert.equal(bandwidth.book(1e12), 0);
  });

  void it("keeps the configured rate for all bodies together and gives each its turn", () => {
    let nowMs = 1_000;
    const bandwidth = new Bandwidth(1_000_000, () => nowMs);
    // A burst may use the bandwidth of 50 ms.
    assert.equal(bandwidth.book(50_000), 0);
    assert.equal(bandwidth.book(100_000), 100);
    assert.equal(bandwidth.book(100_000), 200);
    nowMs += 200;
    assert.equal(bandwidth.book(10_000), 10);
  });

  void it("saves up at most one burst while nothing is received", () => {
    let nowMs = 0;
    const bandwidth = new Bandwidth(1_000, () => nowMs);
    bandwidth.book(1);
    nowMs += 3_600_000;
    assert.equal(bandwidth.book(1_050), 1_000);
  });

  void it("keeps the rate over any sequence of chunks", () => {
    let nowMs = 0;
    const bandwidth = new Bandwidth(1_000_000, () => nowMs);
    for (let chunk = 0; chunk < 1_000; chunk++) {
      nowMs += bandwidth.book(16_384);
    }
    const wantedMs = 16_384;
    assert.ok(Math.abs(nowMs - wantedMs) <= 60, `${nowMs} ms`);
  });
});
