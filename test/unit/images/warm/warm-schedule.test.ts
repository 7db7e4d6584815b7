import assert from "node:assert/strict";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { Job } from "../../../../src/images/jobs/job.ts";
import type { WarmRequest } from "../../../../src/images/warm/warm-request.ts";
import {
  type ScheduledList,
  WarmSchedule,
} from "../../../../src/images/warm/warm-schedule.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";
import { Counter } from "../../../support/barrier.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { tempDir } from "../../../support/temp-dir.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

function jobOf(id: string, endedAt: string | null): Job {
  return {
    id,
    kind: "warm",
    state: endedAt === null ? "running" : "done",
    done: 0,
    total: 0,
    bytes: 0,
    bytesTotal: 0,
    running: [],
    errors: [],
    errorCount: 0,
    notes: [],
    startedAt: null,
    endedAt,
    waitsUntil: null,
  };
}

async function setUp(test: AfterTest) {
  const file = join(await tempDir(test), "images.txt");
  await writeFile(file, "alpine:3\n");
  const clock = new FakeClock(new Date(2026, 5, 1, 1, 0).getTime());
  const list: ScheduledList = {
    schedule: "0 2 * * *",
    list: file,
    platforms: ["linux/amd64"],
    withReferrers: true,
    pin: true,
  };
  const state = { lists: [list], fault: undefined as Error | undefined };
  const requests: WarmRequest[] = [];
  const jobs = new Map<string, Job>();
  const messages: string[] = [];
  const note = (_fields: unknown, text?: string): void =>
    void messages.push(`${text}`);
  const checks = new Counter();
  let next: (() => void) | undefined;
  let count = 0;
  const schedule = new WarmSchedule({
    lists: () => state.lists,
    jobs: {
      get: (id) => jobs.get(id),
      start: async (_kind, request) => {
        if (state.fault !== undefined) throw state.fault;
        requests.push(request as WarmRequest);
        const job = jobOf(String(requests.length), null);
        jobs.set(job.id, job);
        return job;
      },
    },
    clock,
    log: { info: note, warn: note },
    schedule: (run) => {
      next = run;
      count += 1;
      checks.notify();
      return () => (next = undefined);
    },
  });
  releaseAfter(test, () => schedule.stop());
  const pass = async (durationMs: number): Promise<void> => {
    for (let passedMs = 0; passedMs <= durationMs; passedMs += MINUTE_MS) {
      const wanted = count + 1;
      if (next === undefined) schedule.start();
      else next();
      await checks.until(
        () => count >= wanted,
        () => "the check did not end",
      );
      clock.advance(MINUTE_MS);
    }
  };
  const end = (id: string): void =>
    void jobs.set(id, jobOf(id, "2026-06-01T00:00:00.000Z"));
  return { file, list, state, requests, messages, pass, end };
}

void describe("the schedule of warm lists", () => {
  void it("starts a job with the list as it is at each run", async (test) => {
    const { file, pass, requests, end } = await setUp(test);
    await pass(90 * MINUTE_MS);
    end("1");
    await writeFile(file, "alpine:4\n");
    await pass(24 * HOUR_MS);
    assert.deepEqual(
      requests.map(({ lists }) => lists),
      [
        [{ name: file, text: "alpine:3\n" }],
        [{ name: file, text: "alpine:4\n" }],
      ],
    );
    const [{ lists: _lists, ...options } = { lists: [] }] = requests;
    assert.deepEqual(options, {
      refs: [],
      platforms: ["linux/amd64"],
      withReferrers: true,
      concurrency: 4,
      wait: false,
      pin: true,
      client: "schedule",
      faults: [],
    });
  });

  void it("starts a job that names an unreadable list, so that the failure is seen", async (test) => {
    const { file, pass, requests } = await setUp(test);
    await rm(file);
    await pass(90 * MINUTE_MS);
    assert.deepEqual(
      requests.map(({ lists, faults }) => ({ lists, faults })),
      [
        {
          lists: [],
          faults: [
            {
              origin: file,
              message: "got no such file; expected a readable list of images",
            },
          ],
        },
      ],
    );
  });

  void it("skips a run while the previous job of the list has not ended", async (test) => {
    const { pass, requests, messages } = await setUp(test);
    await pass(30 * HOUR_MS);
    assert.equal(requests.length, 1);
    assert.deepEqual(messages, [
      "skipped a scheduled warm job because the previous one has not ended",
    ]);
  });

  void it("follows lists that a reload adds, changes and removes", async (test) => {
    const { list, pass, requests, state, end } = await setUp(test);
    await pass(90 * MINUTE_MS);
    end("1");
    state.lists = [{ ...list, schedule: "0 4 * * *", pin: false }];
    await pass(24 * HOUR_MS);
    end("2");
    state.lists = [];
    await pass(24 * HOUR_MS);
    assert.deepEqual(
      requests.map(({ pin }) => pin),
      [true, false],
    );
  });

  void it("continues after a job could not be started", async (test) => {
    const { pass, requests, messages, state } = await setUp(test);
    state.fault = new Error("the index is away");
    await pass(90 * MINUTE_MS);
    assert.deepEqual(messages, ["could not start a scheduled warm job"]);
    state.fault = undefined;
    await pass(24 * HOUR_MS);
    assert.equal(requests.length, 1);
  });
});
