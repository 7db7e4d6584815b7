import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import type { Job } from "../../src/images/jobs/job.ts";
import type { WarmPlan } from "../../src/images/warm/warm-plan.ts";
import type { TestMirror } from "./mirror-harness.ts";

const DEADLINE_MS = 60_000;

type Operator = Pick<TestMirror, "operate">;

/** Starts a warm job. */
export async function startWarm(
  mirror: Operator,
  order: unknown,
): Promise<Job> {
  const { status, body } = await mirror.operate("POST", "/warm", order);
  assert.equal(status, 202, JSON.stringify(body));
  return body as Job;
}

/** Reads a job until it is as wanted. */
export async function jobUntil(
  mirror: Operator,
  id: string,
  isWanted: (job: Job) => boolean,
): Promise<Job> {
  const endMs = performance.now() + DEADLINE_MS;
  for (;;) {
    const { status, body } = await mirror.operate("GET", `/jobs/${id}`);
    assert.equal(status, 200, JSON.stringify(body));
    const job = body as Job;
    if (isWanted(job)) return job;
    assert.ok(performance.now() < endMs, `still: ${JSON.stringify(job)}`);
    await delay(10);
  }
}

/** Runs a warm job to its end. */
export async function warm(mirror: Operator, order: unknown): Promise<Job> {
  const { id } = await startWarm(mirror, order);
  return jobUntil(mirror, id, ({ endedAt }) => endedAt !== null);
}

/** Returns what a warm job would fetch. */
export async function planWarm(
  mirror: Operator,
  order: object,
): Promise<WarmPlan> {
  const { status, body } = await mirror.operate("POST", "/warm", {
    ...order,
    dryRun: true,
  });
  assert.equal(status, 200, JSON.stringify(body));
  return body as WarmPlan;
}
