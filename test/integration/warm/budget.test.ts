import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Schedule } from "../../../src/telemetry/clock.ts";
import type { AfterTest } from "../../support/after-test.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { buildImage, buildMultiArch } from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedBudget } from "../../support/scripted-budget.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { jobUntil, planWarm, startWarm, warm } from "../../support/warm-job.ts";

const HOUR_MS = 3_600_000;
const LIMIT = 20;
/** A tenth of the limit is kept for clients. */
const FOR_JOBS = 18;
const REFS = Array.from({ length: 25 }, (_, at) => `app:${at}`);

interface Hub {
  readonly clock: FakeClock;
  readonly upstream: ScriptedUpstream;
  readonly budget: ScriptedBudget;
  readonly mirror: TestMirror;
  /** Ends the waits of jobs. */
  readonly wake: () => void;
}

/** A registry that counts pulls, with more images than its budget allows, and another that does not. */
async function startHub(test: AfterTest): Promise<Hub> {
  const clock = new FakeClock();
  const upstream = await ScriptedUpstream.start(test, { clock });
  for (const ref of REFS) {
    const [repository = "", tag] = ref.split(":");
    const image = buildImage({ seed: ref });
    upstream.content.addImage(`library/${repository}`, image, tag);
  }
  const budget = new ScriptedBudget(upstream, { clock, limit: LIMIT });
  const quay = await ScriptedUpstream.start(test);
  quay.content.addImage("team/app", buildImage({ seed: "quay" }), "1");
  const waits = new Set<() => void>();
  // The checks of the configured lists are among them, and find none.
  const warmSchedule: Schedule = (run) => {
    waits.add(run);
    return () => void waits.delete(run);
  };
  const mirror = await startMirror(
    test,
    [
      upstreamOf(upstream, {
        name: "docker.io",
        isDefault: true,
        libraryPrefix: true,
      }),
      upstreamOf(quay, { name: "quay.io", isDefault: false }),
    ],
    { clock, warmSchedule },
  );
  const wake = (): void => {
    const due = new Set(waits);
    waits.clear();
    for (const run of due) run();
  };
  return { clock, upstream, budget, mirror, wake };
}

void describe("a warm job at a registry with a pull budget", () => {
  void it("stops at the tenth that is kept for clients, says until when, and goes on with other registries", async (test) => {
    const { budget, mirror } = await startHub(test);
    const job = await warm(mirror, {
      refs: [...REFS, "quay.io/team/app:1"],
      concurrency: 3,
    });
    assert.equal(budget.counted, FOR_JOBS);
    assert.equal(budget.refused, 0);
    assert.deepEqual(
      [job.state, job.done, job.errorCount],
      ["failed", REFS.length + 1, REFS.length - FOR_JOBS],
    );
    for (const { message } of job.errors) {
      assert.equal(
        message,
        "not fetched: the rest of the pull budget of docker.io is kept for clients until 2026-01-01T06:00:00.000Z; warm again then, or let the job wait",
      );
    }
    assert.equal(job.waitsUntil, null);
  });

  void it("continues with the next run, which costs no pull for what is present", async (test) => {
    const { clock, budget, mirror } = await startHub(test);
    await warm(mirror, { refs: REFS });
    clock.advance(6 * HOUR_MS + 1);
    const job = await warm(mirror, { refs: REFS });
    assert.deepEqual([job.state, job.errors], ["done", []]);
    assert.equal(budget.counted, REFS.length);
  });

  void it("waits, if that is ordered, and goes on when the budget has grown", async (test) => {
    const { clock, upstream, budget, mirror, wake } = await startHub(test);
    const { id } = await startWarm(mirror, { refs: REFS, wait: true });
    const waiting = await jobUntil(
      mirror,
      id,
      ({ waitsUntil }) => waitsUntil !== null,
    );
    assert.equal(waiting.waitsUntil, "2026-01-01T06:00:00.000Z");
    await jobUntil(mirror, id, ({ done }) => done === FOR_JOBS);
    assert.equal(budget.counted, FOR_JOBS);
    // Nothing has changed yet: one HEAD shows it.
    upstream.forgetRequests();
    wake();
    await upstream.ended({ kind: "manifest", method: "HEAD" }, 1);
    assert.equal(upstream.count({ method: "GET" }), 0);
    clock.advance(6 * HOUR_MS + 1);
    await jobUntil(mirror, id, ({ waitsUntil }) => waitsUntil !== null);
    wake();
    const job = await jobUntil(mirror, id, ({ endedAt }) => endedAt !== null);
    assert.deepEqual(
      [job.state, job.done, job.errors, job.waitsUntil],
      ["done", REFS.length, [], null],
    );
    assert.equal(budget.counted, REFS.length);
  });

  void it("does not delay the next job, which is of another registry", async (test) => {
    const { clock, budget, mirror, wake } = await startHub(test);
    budget.spend(FOR_JOBS);
    const { id } = await startWarm(mirror, { refs: ["app:1"], wait: true });
    await jobUntil(mirror, id, ({ waitsUntil }) => waitsUntil !== null);
    const other = await warm(mirror, { refs: ["quay.io/team/app:1"] });
    assert.deepEqual([other.state, other.done], ["done", 1]);
    clock.advance(6 * HOUR_MS + 1);
    wake();
    const job = await jobUntil(mirror, id, ({ endedAt }) => endedAt !== null);
    assert.deepEqual([job.state, job.done], ["done", 1]);
  });

  void it("waits after a 429 too", async (test) => {
    const { clock, budget, mirror, wake } = await startHub(test);
    budget.spend(LIMIT);
    const { id } = await startWarm(mirror, { refs: ["app:1"], wait: true });
    await jobUntil(mirror, id, ({ waitsUntil }) => waitsUntil !== null);
    clock.advance(6 * HOUR_MS + 1);
    wake();
    const job = await jobUntil(mirror, id, ({ endedAt }) => endedAt !== null);
    assert.deepEqual([job.state, job.done], ["done", 1]);
  });

  void it("is cancelled while it waits", async (test) => {
    const { budget, mirror } = await startHub(test);
    budget.spend(FOR_JOBS);
    const { id } = await startWarm(mirror, { refs: REFS, wait: true });
    await jobUntil(mirror, id, ({ waitsUntil }) => waitsUntil !== null);
    await mirror.operate("DELETE", `/jobs/${id}`);
    const job = await jobUntil(mirror, id, ({ endedAt }) => endedAt !== null);
    assert.equal(job.state, "cancelled");
  });

  void it("has a dry run that costs no pull, and counts at least those of the job", async (test) => {
    const { upstream, budget, mirror } = await startHub(test);
    const multi = buildMultiArch({ seed: "multi" });
    upstream.content.addIndex("library/multi", multi, "1");
    const refs = ["app:1", "app:2", "multi:1"];
    const plan = await planWarm(mirror, { refs });
    assert.equal(budget.counted, 0);
    const [hub] = plan.upstreams;
    assert.deepEqual(
      [hub?.pulls, hub?.isPartial, hub?.pullsLeft],
      [3, true, LIMIT],
    );
    await warm(mirror, { refs });
    assert.equal(budget.counted, 3 + multi.images.length);
    const after = await planWarm(mirror, { refs });
    assert.deepEqual(after.images, []);
    assert.deepEqual(
      [after.upstreams[0]?.pulls, after.upstreams[0]?.isPartial],
      [0, false],
    );
  });
});
