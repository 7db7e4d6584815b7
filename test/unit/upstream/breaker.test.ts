import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Breaker, type BreakerPermit } from "../../../src/upstream/breaker.ts";
import { FakeClock } from "../../support/fake-clock.ts";

function setUp(): {
  clock: FakeClock;
  breaker: Breaker;
  changes: boolean[];
  enter: () => BreakerPermit;
} {
  const clock = new FakeClock();
  const changes: boolean[] = [];
  const breaker = new Breaker(clock, (isUp) => changes.push(isUp));
  const enter = (): BreakerPermit => {
    const permit = breaker.enter();
    assert.ok(permit, "expected a permit");
    return permit;
  };
  return { clock, breaker, changes, enter };
}

void describe("Breaker", () => {
  void it("opens at the first severe failure and allows one probe after 5 s", () => {
    const { clock, breaker, changes, enter } = setUp();
    enter().fail({ severity: "severe" });
    assert.equal(breaker.isOpen, true);
    assert.equal(breaker.retryAfterMs, 5_000);
    assert.equal(breaker.enter(), undefined);
    clock.advance(4_999);
    assert.equal(breaker.enter(), undefined);
    clock.advance(1);
    const probe = enter();
    assert.equal(probe.isProbe, true);
    assert.equal(breaker.enter(), undefined);
    probe.succeed();
    assert.equal(breaker.isOpen, false);
    assert.equal(enter().isProbe, false);
    assert.deepEqual(changes, [false, true]);
  });

  void it("opens only at the third mild failure in a row", () => {
    const { breaker, enter } = setUp();
    enter().fail({ severity: "mild" });
    enter().fail({ severity: "mild" });
    enter().succeed();
    enter().fail({ severity: "mild" });
    enter().fail({ severity: "mild" });
    assert.equal(breaker.isOpen, false);
    enter().fail({ severity: "mild" });
    assert.equal(breaker.isOpen, true);
  });

  void it("counts a resource that fails repeatedly once", () => {
    const { breaker, enter } = setUp();
    const fail = (resource: string): void =>
      enter().fail({ severity: "mild", resource });
    for (let round = 0; round < 10; round++) fail("a");
    fail("b");
    for (let round = 0; round < 10; round++) fail("a");
    assert.equal(breaker.isOpen, false);
    fail("c");
    assert.equal(breaker.isOpen, true);
  });

  void it("rests for the Retry-After of the third failure that opened it", () => {
    const { clock, breaker, enter } = setUp();
    for (const resource of ["a", "b", "c"]) {
      enter().fail({ severity: "mild", resource, retryAfterMs: 120_000 });
    }
    assert.equal(breaker.retryAfterMs, 120_000);
    clock.advance(120_000);
    enter().fail({ severity: "mild", retryAfterMs: 60_000 });
    assert.equal(breaker.retryAfterMs, 60_000);
  });

  void it("doubles the pause with each failed probe, up to 5 min, and resets it after a success", () => {
    const { clock, breaker, enter } = setUp();
    enter().fail({ severity: "severe" });
    const pauses: number[] = [];
    for (let round = 0; round < 9; round++) {
      pauses.push(breaker.retryAfterMs / 1000);
      clock.advance(breaker.retryAfterMs);
      enter().fail({ severity: "mild" });
    }
    assert.deepEqual(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    clock.advance(300_000);
    enter().succeed();
    enter().fail({ severity: "severe" });
    assert.equal(breaker.retryAfterMs, 5_000);
  });

  void it("counts concurrent failures as one", () => {
    const { breaker, enter } = setUp();
    const together = Array.from({ length: 8 }, enter);
    for (const permit of together) permit.fail({ severity: "severe" });
    assert.equal(breaker.retryAfterMs, 5_000);
  });

  void it("closes when a request that was running before succeeds", () => {
    const { breaker, enter } = setUp();
    const early = enter();
    enter().fail({ severity: "severe" });
    early.succeed();
    assert.equal(breaker.isOpen, false);
  });

  void it("ignores a request that the mirror ended, and probes again", () => {
    const { clock, breaker, enter } = setUp();
    enter().abandon();
    assert.equal(breaker.isOpen, false);
    enter().fail({ severity: "severe" });
    clock.advance(5_000);
    enter().abandon();
    assert.equal(breaker.isOpen, true);
    assert.equal(enter().isProbe, true);
  });

  void it("accepts the first report of a permit only", () => {
    const { breaker, enter } = setUp();
    const permit = enter();
    permit.succeed();
    permit.fail({ severity: "severe" });
    assert.equal(breaker.isOpen, false);
  });

  void it("rests for its Retry-After although other requests succeed meanwhile", () => {
    const { clock, breaker, enter } = setUp();
    const early = enter();
    enter().rest(60_000);
    early.succeed();
    assert.equal(breaker.isOpen, true);
    assert.equal(breaker.retryAfterMs, 60_000);
    clock.advance(60_000);
    assert.equal(breaker.isPassable, true);
    enter().succeed();
    assert.equal(breaker.isOpen, false);
  });

  void it("does not shorten a pause by a shorter rest", () => {
    const { clock, breaker, enter } = setUp();
    const early = enter();
    enter().rest(60_000);
    early.rest(1_000);
    assert.equal(breaker.retryAfterMs, 60_000);
    clock.advance(60_000);
    enter().rest(10);
    assert.equal(breaker.retryAfterMs, 10);
  });

  void it("does not depend on the wall clock", () => {
    const { clock, breaker, enter } = setUp();
    enter().fail({ severity: "severe" });
    clock.setWall(clock.nowMs() + 10 * 365 * 86_400_000);
    assert.equal(breaker.retryAfterMs, 5_000);
  });
});
