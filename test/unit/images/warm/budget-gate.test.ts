import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { keyOf, tag } from "../../../contract/metadata-index-contract.ts";
import { BudgetGate } from "../../../../src/images/warm/budget-gate.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { ManualSchedule } from "../../../support/manual-schedule.ts";

const HOUR_MS = 3_600_000;
const image = (name: string) => ({
  key: keyOf("docker.io", `library/${name}`),
  reference: { kind: "tag", tag: tag("latest") } as const,
});

/** An upstream whose budget a test sets. */
class Scene {
  readonly clock = new FakeClock();
  readonly schedule = new ManualSchedule();
  readonly abort = new AbortController();
  heads = 0;
  changes = 0;
  remaining: number | undefined = 3;
  pausedUntilMs: number | undefined;

  gate(isWaiting: boolean): BudgetGate {
    return new BudgetGate({
      mirror: {
        pullBudget: (name) => ({
          remaining: this.remaining,
          pausedUntilMs: name === "docker.io" ? this.pausedUntilMs : undefined,
        }),
        headManifest: async () => {
          this.heads += 1;
          return undefined;
        },
      },
      clock: this.clock,
      schedule: this.schedule.start,
      isWaiting,
      signal: this.abort.signal,
      onChange: () => {
        this.changes += 1;
      },
    });
  }
}

void describe("BudgetGate", () => {
  void it("lets a pull pass while the upstream has budget", async () => {
    const scene = new Scene();
    await scene.gate(true).pass(image("app"));
    assert.equal(scene.heads, 0);
  });

  void it("learns an unknown budget by one HEAD before the first pulls", async () => {
    const scene = new Scene();
    scene.remaining = undefined;
    const gate = scene.gate(true);
    await Promise.all(["one", "two"].map((name) => gate.pass(image(name))));
    assert.equal(scene.heads, 1);
  });

  void it("rejects without waiting, and names the upstream and the time", async () => {
    const scene = new Scene();
    scene.pausedUntilMs = Date.UTC(2026, 0, 1, 6);
    await assert.rejects(
      scene.gate(false).pass(image("app")),
      /pull budget of docker\.io is kept for clients until 2026-01-01T06:00:00\.000Z/,
    );
    assert.deepEqual(scene.schedule.delaysMs, []);
  });

  void it("waits, asks by one HEAD for all images every five minutes, and continues when budget is left", async () => {
    const scene = new Scene();
    const gate = scene.gate(true);
    const untilMs = scene.clock.nowMs() + HOUR_MS;
    scene.pausedUntilMs = untilMs;
    let passed = 0;
    const passes = ["one", "two"].map((name) =>
      gate.pass(image(name)).then(() => {
        passed += 1;
      }),
    );
    await nextTurn();
    assert.equal(gate.waitsUntilMs, untilMs);
    assert.deepEqual(scene.schedule.delaysMs, [300_000]);
    scene.schedule.runNext();
    await nextTurn();
    assert.deepEqual([scene.heads, passed], [1, 0]);
    scene.pausedUntilMs = undefined;
    scene.schedule.runNext();
    await Promise.all(passes);
    assert.deepEqual([scene.heads, passed], [2, 2]);
    assert.equal(gate.waitsUntilMs, undefined);
    assert.ok(scene.changes > 0);
  });

  void it("waits at least a second, so that a pause without an end does not spin", async () => {
    const scene = new Scene();
    scene.pausedUntilMs = scene.clock.nowMs();
    const passed = scene.gate(true).pass(image("app"));
    await nextTurn();
    assert.deepEqual(scene.schedule.delaysMs, [1_000]);
    scene.pausedUntilMs = undefined;
    scene.schedule.runNext();
    await passed;
  });

  void it("ends the wait when the job is cancelled", async () => {
    const scene = new Scene();
    scene.pausedUntilMs = scene.clock.nowMs() + HOUR_MS;
    const gate = scene.gate(true);
    const passed = gate.pass(image("app"));
    await nextTurn();
    scene.abort.abort(new Error("cancelled"));
    await assert.rejects(passed, /cancelled/);
    assert.deepEqual(scene.schedule.delaysMs, []);
    assert.equal(gate.waitsUntilMs, undefined);
  });

  void it("does not hold the images of another upstream", async () => {
    const scene = new Scene();
    scene.pausedUntilMs = scene.clock.nowMs() + HOUR_MS;
    const gate = scene.gate(true);
    const held = gate.pass(image("app"));
    await gate.pass({ ...image("app"), key: keyOf("quay.io", "team/app") });
    scene.abort.abort(new Error("end of the test"));
    await assert.rejects(held, /end of the test/);
  });

  void it("rejects with the upstream's refusal if that is not paused", async () => {
    const scene = new Scene();
    const refusal = new Error("too many requests");
    await assert.rejects(
      scene.gate(true).passOr(image("app"), refusal),
      refusal,
    );
  });
});
