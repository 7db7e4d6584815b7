import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { HostedConfig } from "../../../../src/config/config.ts";
import { RetentionSchedule } from "../../../../src/hosted/retention/retention-schedule.ts";
import { IndexError } from "../../../../src/storage/metadata-index.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";
import { Counter } from "../../../support/barrier.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { hostedConfig } from "../../../support/hosted-config.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

const scheduled = (name: string, schedule: string): HostedConfig =>
  hostedConfig({
    name,
    retention: { schedule, rules: [], untaggedMs: Infinity },
  });

function setUp(test: AfterTest, registries: readonly HostedConfig[]) {
  // The schedule is in local time, whatever the zone of the tests is.
  const clock = new FakeClock(new Date(2026, 5, 1, 2, 0).getTime());
  const runs: string[] = [];
  const warnings: string[] = [];
  const state = { registries, fault: undefined as Error | undefined };
  const checks = new Counter();
  let next: (() => void) | undefined;
  let count = 0;
  const schedule = new RetentionSchedule({
    retention: {
      apply: async ({ registry, timed }) => {
        runs.push(`${registry} ${timed}`);
        if (state.fault !== undefined) throw state.fault;
        return { listed: [], count: 0 };
      },
    },
    registries: () => state.registries,
    clock,
    log: {
      warn: (_fields: unknown, text?: string) => warnings.push(`${text}`),
    },
    schedule: (run) => {
      next = run;
      count += 1;
      checks.notify();
      return () => (next = undefined);
    },
  });
  releaseAfter(test, () => schedule.stop());
  const check = async (): Promise<void> => {
    const wanted = count + 1;
    if (next === undefined) schedule.start();
    else next();
    await checks.until(
      () => count >= wanted,
      () => "the check did not end",
    );
  };
  /** Checks, then lets the time pass in steps of a minute, with a check after each. */
  const pass = async (durationMs: number): Promise<void> => {
    await check();
    for (let passedMs = 0; passedMs < durationMs; passedMs += MINUTE_MS) {
      clock.advance(MINUTE_MS);
      await check();
    }
  };
  return { clock, state, runs, warnings, check, pass };
}

void describe("the schedule of retention", () => {
  void it("applies each registry's rules when its expression is due, in local time", async (test) => {
    const { pass, runs } = setUp(test, [
      scheduled("local", "0 3 * * *"),
      scheduled("other", "30 3,4 * * *"),
      hostedConfig({ name: "kept" }),
    ]);
    await pass(3 * HOUR_MS);
    assert.deepEqual(runs, ["local half", "other half", "other half"]);
  });

  void it("leaves out runs that were due while the process did not run", async (test) => {
    const { clock, pass, runs } = setUp(test, [
      scheduled("local", "0 3 * * *"),
    ]);
    clock.advance(2 * HOUR_MS);
    await pass(HOUR_MS);
    assert.deepEqual(runs, []);
  });

  void it("follows a changed expression and a removed registry", async (test) => {
    const { pass, runs, state } = setUp(test, [
      scheduled("local", "0 3 * * *"),
      scheduled("other", "0 3 * * *"),
    ]);
    await pass(MINUTE_MS);
    state.registries = [scheduled("local", "0 4 * * *")];
    await pass(90 * MINUTE_MS);
    assert.deepEqual(runs, []);
    await pass(HOUR_MS);
    assert.deepEqual(runs, ["local half"]);
  });

  void it("deletes nothing because of its age within a day after the clock was set forward", async (test) => {
    const { clock, pass, runs } = setUp(test, [
      scheduled("local", "0 3 * * *"),
    ]);
    await pass(MINUTE_MS);
    clock.setWall(clock.nowMs() + 5 * 365 * 24 * HOUR_MS);
    await pass(0);
    await pass(24 * HOUR_MS);
    await pass(24 * HOUR_MS);
    assert.deepEqual(
      runs,
      ["local none", "local none", "local half"].slice(0, runs.length),
    );
    assert.equal(runs.at(-1), "local half");
  });

  void it("computes the next run again after the clock was set back", async (test) => {
    const { clock, pass, runs } = setUp(test, [
      scheduled("local", "0 3 * * *"),
    ]);
    await pass(MINUTE_MS);
    clock.setWall(clock.nowMs() - 30 * 24 * HOUR_MS);
    await pass(2 * HOUR_MS);
    assert.deepEqual(runs, ["local half"]);
  });

  void it("runs again when it is due after a failure, which the log has", async (test) => {
    const { pass, runs, warnings, state } = setUp(test, [
      scheduled("local", "0 * * * *"),
    ]);
    state.fault = new IndexError("locked");
    await pass(90 * MINUTE_MS);
    assert.equal(runs.length, 1);
    assert.deepEqual(warnings, [
      "the scheduled retention failed and runs again when it is due",
    ]);
    state.fault = undefined;
    await pass(HOUR_MS);
    assert.equal(runs.length, 2);
  });
});
