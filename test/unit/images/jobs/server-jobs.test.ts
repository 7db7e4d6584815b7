import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import {
  type Job,
  type JobChange,
  type JobRun,
  MAX_JOB_ERRORS,
} from "../../../../src/images/jobs/job.ts";
import { ServerJobs } from "../../../../src/images/jobs/server-jobs.ts";
import { RegistryError } from "../../../../src/oci/errors.ts";
import {
  IndexError,
  type MetadataIndex,
} from "../../../../src/storage/metadata-index.ts";
import { Barrier, Counter } from "../../../support/barrier.ts";
import { overrideIndex } from "../../../support/override-index.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { ManualSchedule } from "../../../support/manual-schedule.ts";
import { MemoryMetadataIndex } from "../../../support/memory-index/memory-metadata-index.ts";
import { quietLog } from "../../../support/pulling-mirror.ts";

type Outcome = (run: JobRun) => Promise<void> | void;

/** A server with an index that outlives it, and work that the test controls. */
class Scene {
  readonly index: MetadataIndex;
  readonly clock = new FakeClock();
  readonly schedule = new ManualSchedule();
  readonly started: unknown[] = [];
  /** What the work of a request does; by default it ends. */
  readonly outcomes = new Map<unknown, Outcome>();
  readonly jobs: ServerJobs;
  readonly #counter = new Counter();

  constructor(
    index: MetadataIndex = new MemoryMetadataIndex(),
    isResumed = true,
  ) {
    this.index = index;
    this.jobs = new ServerJobs({
      records: index,
      works: {
        warm: async () => async (request, run) => {
          this.started.push(request);
          await this.outcomes.get(request)?.(run);
        },
      },
      clock: this.clock,
      log: quietLog,
      schedule: this.schedule.start,
    });
    this.jobs.subscribe(() => this.#counter.notify());
    if (isResumed) void this.jobs.resume();
  }

  /** Resolves when the job has ended. */
  async ended(id: string): Promise<Job> {
    await this.#counter.until(
      () => this.#get(id).endedAt !== null,
      () => JSON.stringify(this.jobs.get(id)),
    );
    return this.#get(id);
  }

  /** Starts a job that runs until the barrier is released, and waits until it runs. */
  async startHeld(request: string): Promise<{ job: Job; barrier: Barrier }> {
    const barrier = new Barrier();
    this.outcomes.set(request, ({ signal }) => barrier.pass(signal));
    const job = await this.jobs.start("warm", request);
    await barrier.arrived();
    return { job, barrier };
  }

  #get(id: string): Job {
    const job = this.jobs.get(id);
    assert(job !== undefined);
    return job;
  }
}

void describe("jobs of the server", () => {
  void it("run one after another in the order of their starts", async () => {
    const scene = new Scene();
    const { job: first, barrier } = await scene.startHeld("first");
    const second = await scene.jobs.start("warm", "second");
    const third = await scene.jobs.start("warm", { lists: ["third"] });
    assert.deepEqual(
      [first, second, third].map(({ id }) => scene.jobs.get(id)?.state),
      ["running", "queued", "queued"],
    );
    assert.equal(second.startedAt, null);
    scene.clock.advance(1_000);
    barrier.release();
    assert.deepEqual(await scene.ended(third.id), {
      id: third.id,
      kind: "warm",
      state: "done",
      done: 0,
      total: 0,
      bytes: 0,
      bytesTotal: 0,
      running: [],
      errors: [],
      errorCount: 0,
      notes: [],
      startedAt: "2026-01-01T00:00:01.000Z",
      endedAt: "2026-01-01T00:00:01.000Z",
      waitsUntil: null,
    });
    assert.deepEqual(scene.started, ["first", "second", { lists: ["third"] }]);
  });

  void it("give their turn to the next one while they wait, and continue beside it", async () => {
    const scene = new Scene();
    const budget = new Barrier();
    scene.outcomes.set("waiting", async (run) => {
      run.report({ waitsUntil: "2026-01-01T06:00:00.000Z" });
      await budget.pass(run.signal);
      run.report({ waitsUntil: null });
    });
    const waiting = await scene.jobs.start("warm", "waiting");
    await budget.arrived();
    const { job: working, barrier } = await scene.startHeld("working");
    const queued = await scene.jobs.start("warm", "queued");
    assert.deepEqual(
      [waiting, working, queued].map(({ id }) => scene.jobs.get(id)?.state),
      ["running", "running", "queued"],
    );
    budget.release();
    assert.equal((await scene.ended(waiting.id)).state, "done");
    assert.equal(scene.jobs.get(queued.id)?.state, "queued");
    barrier.release();
    await scene.ended(queued.id);
    assert.deepEqual(scene.started, ["waiting", "working", "queued"]);
  });

  void it("begin when the one before them begins to wait, eight at most", async () => {
    const scene = new Scene();
    const { barrier } = await scene.startHeld("first");
    const waits = new Barrier();
    const ids: string[] = [];
    for (let n = 1; n <= 10; n++) {
      scene.outcomes.set(n, (run) => {
        run.report({ waitsUntil: "2026-01-01T06:00:00.000Z" });
        return waits.pass(run.signal);
      });
      ids.push((await scene.jobs.start("warm", n)).id);
    }
    assert.deepEqual(scene.started, ["first"]);
    barrier.release();
    await waits.arrived(8);
    assert.equal(scene.started.at(-1), 8);
    const states = ids.map((id) => scene.jobs.get(id)?.state);
    assert.deepEqual(states.slice(7), ["running", "queued", "queued"]);
    waits.release();
    for (const id of ids) await scene.ended(id);
  });

  void it("show the progress and the failures that their work reports", async () => {
    const scene = new Scene();
    const barrier = new Barrier();
    scene.outcomes.set("list", async (run) => {
      run.report({
        done: 1,
        total: 3,
        bytes: 10,
        bytesTotal: 20,
        running: [{ ref: "a", bytes: 1, bytesTotal: 2 }],
        waitsUntil: "2026-01-01T01:00:00.000Z",
      });
      run.report({ done: 2 });
      run.fail("docker.io/library/b:1", "not found\u202e");
      await barrier.pass();
    });
    const { id } = await scene.jobs.start("warm", "list");
    await barrier.arrived();
    const running = scene.jobs.get(id);
    assert.deepEqual(running?.running, [{ ref: "a", bytes: 1, bytesTotal: 2 }]);
    assert.equal(running.waitsUntil, "2026-01-01T01:00:00.000Z");
    barrier.release();
    const { state, done, total, bytes, bytesTotal, errors, waitsUntil } =
      await scene.ended(id);
    assert.deepEqual(
      { state, done, total, bytes, bytesTotal, errors, waitsUntil },
      {
        state: "failed",
        done: 2,
        total: 3,
        bytes: 10,
        bytesTotal: 20,
        errors: [{ ref: "docker.io/library/b:1", message: "not found\ufffd" }],
        waitsUntil: null,
      },
    );
  });

  void it("fail with a text of this program when their work throws, and the next one runs", async () => {
    const scene = new Scene();
    scene.outcomes.set("refused", () => {
      throw new RegistryError("NAME_UNKNOWN", { detail: "no such upstream" });
    });
    scene.outcomes.set("broken", () => {
      throw new Error("secret of the program");
    });
    const refused = await scene.jobs.start("warm", "refused");
    const broken = await scene.jobs.start("warm", "broken");
    const fine = await scene.jobs.start("warm", "fine");
    assert.equal((await scene.ended(fine.id)).state, "done");
    for (const [{ id }, message] of [
      [refused, "no such upstream"],
      [broken, "the work failed: see the log of the server"],
    ] as const) {
      const { state, errors } = await scene.ended(id);
      assert.deepEqual(
        { state, errors },
        { state: "failed", errors: [{ ref: "", message }] },
      );
    }
  });

  void it("ignore what work reports after its end", async () => {
    const scene = new Scene();
    const runs: JobRun[] = [];
    scene.outcomes.set("late", (run) => void runs.push(run));
    const { id } = await scene.jobs.start("warm", "late");
    const ended = await scene.ended(id);
    runs[0]?.report({ done: 9 });
    runs[0]?.fail("a", "b");
    assert.deepEqual(scene.jobs.get(id), ended);
  });

  void it("count all errors and keep a bounded number", async () => {
    const scene = new Scene();
    scene.outcomes.set("bad", (run) => {
      for (let n = 0; n < MAX_JOB_ERRORS + 5; n++) run.fail(`a:${n}`, "absent");
      run.fail("x".repeat(10_000), "y".repeat(10_000));
    });
    const { id } = await scene.jobs.start("warm", "bad");
    const { errors, errorCount } = await scene.ended(id);
    assert.equal(errorCount, MAX_JOB_ERRORS + 6);
    assert.equal(errors.length, MAX_JOB_ERRORS);
    assert.equal(
      scene.jobs.list({ n: 1, last: undefined }).items[0]?.errors.length,
      10,
    );
    for (let n = 0; n < 10; n++) {
      await scene.ended((await scene.jobs.start("warm", n)).id);
    }
    assert.equal(scene.jobs.get(id)?.errors.length, 10);
    await scene.jobs.stop();
    const next = new Scene(scene.index);
    await next.jobs.resume();
    assert.deepEqual(next.jobs.get(id), scene.jobs.get(id));
  });

  void it("keep a bounded number of notes, and do not fail for them", async () => {
    const scene = new Scene();
    scene.outcomes.set("noted", (run) => {
      for (let n = 0; n < MAX_JOB_ERRORS + 5; n++) run.note(`a:${n}`, "unused");
    });
    const { id } = await scene.jobs.start("warm", "noted");
    const { state, notes } = await scene.ended(id);
    assert.deepEqual([state, notes.length], ["done", MAX_JOB_ERRORS]);
    const listed = scene.jobs.list({ n: 1, last: undefined }).items[0];
    assert.equal(listed?.notes.length, 10);
    await scene.jobs.stop();
    const next = new Scene(scene.index);
    await next.jobs.resume();
    assert.deepEqual(next.jobs.get(id), scene.jobs.get(id));
  });

  void it("are listed newest first, in pages", async () => {
    const scene = new Scene();
    const ids: string[] = [];
    for (let n = 0; n < 5; n++) {
      const { id } = await scene.jobs.start("warm", n);
      await scene.ended(id);
      ids.unshift(id);
    }
    const first = scene.jobs.list({ n: 2, last: undefined });
    assert.deepEqual(
      first.items.map(({ id }) => id),
      ids.slice(0, 2),
    );
    assert.equal(first.next, ids[1]);
    const rest = scene.jobs.list({ n: 3, last: ids[1] });
    assert.deepEqual(
      rest.items.map(({ id }) => id),
      ids.slice(2),
    );
    assert.equal(rest.next, null);
    assert.equal(scene.jobs.get("absent"), undefined);
  });

  void it("keep the last hundred that ended, in memory and in the index", async () => {
    const scene = new Scene();
    const ids: string[] = [];
    for (let n = 0; n < 103; n++) {
      const { id } = await scene.jobs.start("warm", n);
      await scene.ended(id);
      ids.push(id);
    }
    await scene.jobs.stop();
    for (const jobs of [scene.jobs, new Scene(scene.index).jobs]) {
      await jobs.resume();
      const { items } = jobs.list({ n: 1_000, last: undefined });
      assert.deepEqual(items.map(({ id }) => id).toReversed(), ids.slice(3));
    }
    const records = await scene.index.listRecords("job", 1_000, undefined);
    assert.equal(records.length, 100);
  });

  void it("are limited in number and in the length of their requests", async () => {
    const scene = new Scene();
    const { barrier } = await scene.startHeld("held");
    const large = "x".repeat(60 * 1024 * 1024);
    const { id } = await scene.jobs.start("warm", large);
    await assert.rejects(
      scene.jobs.start("warm", "x".repeat(5 * 1024 * 1024)),
      isTooMany,
    );
    await scene.jobs.cancel(id);
    for (let n = 0; n < 99; n++) await scene.jobs.start("warm", n);
    await assert.rejects(scene.jobs.start("warm", "one more"), isTooMany);
    barrier.release();
  });
});

void describe("a cancelled job", () => {
  void it("ends its work and lets the next one run", async () => {
    const scene = new Scene();
    const { job, barrier } = await scene.startHeld("held");
    const next = await scene.jobs.start("warm", "next");
    const changes: string[] = [];
    scene.jobs.subscribe((change) => {
      if (change.job.id === job.id) changes.push(change.job.state);
    });
    const cancelled = await Promise.all([
      scene.jobs.cancel(job.id),
      scene.jobs.cancel(job.id),
    ]);
    assert.deepEqual(
      cancelled.map((each) => each?.state),
      ["cancelled", "cancelled"],
    );
    assert.equal((await scene.ended(job.id)).state, "cancelled");
    // When it was cancelled, and when it has ended.
    assert.deepEqual(changes, ["cancelled", "cancelled"]);
    assert.equal((await scene.ended(next.id)).state, "done");
    assert.equal(barrier.arrivals, 1);
    const [ended] = [await scene.jobs.cancel(next.id)];
    assert.equal(ended?.state, "done");
    assert.equal(await scene.jobs.cancel("absent"), undefined);
  });

  void it("never runs if it was queued", async () => {
    const scene = new Scene();
    const { barrier } = await scene.startHeld("held");
    const queued = await scene.jobs.start("warm", "queued");
    const cancelled = await scene.jobs.cancel(queued.id);
    assert.equal(cancelled?.state, "cancelled");
    assert.notEqual(cancelled.endedAt, null);
    assert.equal(cancelled.startedAt, null);
    const last = await scene.jobs.start("warm", "last");
    barrier.release();
    await scene.ended(last.id);
    assert.deepEqual(scene.started, ["held", "last"]);
  });

  void it("does not continue after a crash, though its work had not ended", async () => {
    const scene = new Scene();
    const barrier = new Barrier();
    scene.outcomes.set("deaf", () => barrier.pass());
    const { id } = await scene.jobs.start("warm", "deaf");
    await barrier.arrived();
    const cancelled = await scene.jobs.cancel(id);
    assert.equal(cancelled?.state, "cancelled");
    assert.equal(cancelled.endedAt, null);
    const next = new Scene(scene.index);
    await next.jobs.resume();
    assert.equal(next.jobs.get(id)?.state, "cancelled");
    assert.deepEqual(next.started, []);
    barrier.release();
    assert.equal((await scene.ended(id)).state, "cancelled");
  });
});

void describe("after a restart", () => {
  void it("interrupted and queued jobs continue in their order, with new ids after theirs", async () => {
    const scene = new Scene();
    const { job: interrupted } = await scene.startHeld("interrupted");
    const queued = await scene.jobs.start("warm", { queued: true });
    await scene.jobs.stop();
    assert.equal(scene.jobs.get(interrupted.id)?.endedAt, null);
    const next = new Scene(scene.index);
    next.clock.setWall(0);
    const { id } = await next.jobs.start("warm", "new");
    await next.ended(id);
    assert.deepEqual(next.started, ["interrupted", { queued: true }, "new"]);
    assert.equal((await next.ended(interrupted.id)).state, "done");
    assert.equal((await next.ended(queued.id)).state, "done");
    assert.ok(id > queued.id);
  });

  void it("jobs are listed before they run, and new ones wait with them", async () => {
    const scene = new Scene();
    const { job } = await scene.startHeld("kept");
    await scene.jobs.stop();
    const next = new Scene(scene.index, false);
    await next.jobs.open();
    const { id } = await next.jobs.start("warm", "new");
    assert.deepEqual(
      next.jobs
        .list({ n: 9, last: undefined })
        .items.map((listed) => [listed.id, listed.state]),
      [
        [id, "queued"],
        [job.id, "queued"],
      ],
    );
    assert.deepEqual(next.started, []);
    await next.jobs.resume();
    await next.ended(id);
    assert.deepEqual(next.started, ["kept", "new"]);
  });

  void it("a job continues whose work ended quietly when the server stopped", async () => {
    const scene = new Scene();
    const { job } = await scene.startHeld("quiet");
    await scene.jobs.stop();
    const next = new Scene(scene.index);
    await next.jobs.resume();
    assert.equal((await next.ended(job.id)).state, "done");
    assert.deepEqual(next.started, ["quiet"]);
  });

  void it("jobs that cannot be read are dropped, and one without work fails", async () => {
    const index = new MemoryMetadataIndex();
    const texts = [
      "not JSON",
      `{"kind":"unknown","request":1}`,
      `{"kind":"warm"}`,
      `{"job":{"id":"other","state":"done"}}`,
      `{"job":null}`,
    ];
    const records = texts.map((text, n) => ({ id: `bad${n}`, text }));
    await index.writeRecords("job", records, []);
    const importing = { id: "import", text: `{"kind":"import","request":1}` };
    await index.writeRecords("job", [importing], []);
    const scene = new Scene(index);
    await scene.jobs.resume();
    const { state, errors } = await scene.ended("import");
    assert.equal(state, "failed");
    assert.match(errors[0]?.message ?? "", /no work for a job of the kind/);
    const kept = await index.listRecords("job", 10, undefined);
    assert.deepEqual(
      kept.map(({ id }) => id),
      ["import"],
    );
  });

  void it("jobs continue when the index can be read later", async () => {
    const scene = new Scene();
    await scene.startHeld("kept");
    await scene.jobs.stop();
    const failing = new FailingIndex(scene.index);
    const next = new Scene(failing.index, false);
    failing.isFailing = true;
    await next.jobs.open();
    await next.jobs.resume();
    await assert.rejects(next.jobs.start("warm", "refused"), IndexError);
    assert.deepEqual(next.schedule.delaysMs, [10_000]);
    const stopped = new Scene(failing.index, false);
    await stopped.jobs.resume();
    await stopped.jobs.stop();
    await stopped.jobs.resume();
    assert.deepEqual(stopped.schedule.delaysMs, []);
    failing.isFailing = false;
    next.schedule.runNext();
    const { id } = await next.jobs.start("warm", "accepted");
    await next.ended(id);
    assert.deepEqual(next.started, ["kept", "accepted"]);
  });
});

void describe("a job whose index fails", () => {
  void it("is not accepted if its request can't be kept", async () => {
    const failing = new FailingIndex(new MemoryMetadataIndex());
    const scene = new Scene(failing.index);
    await scene.jobs.resume();
    failing.isFailing = true;
    await assert.rejects(scene.jobs.start("warm", "lost"), IndexError);
    assert.deepEqual(scene.jobs.list({ n: 9, last: undefined }).items, []);
    assert.deepEqual(scene.started, []);
  });

  void it("ends though its end can't be recorded", async () => {
    const failing = new FailingIndex(new MemoryMetadataIndex());
    const scene = new Scene(failing.index);
    const { job, barrier } = await scene.startHeld("held");
    failing.isFailing = true;
    barrier.release();
    assert.equal((await scene.ended(job.id)).state, "done");
    failing.isFailing = false;
    const { id } = await scene.jobs.start("warm", "next");
    assert.equal((await scene.ended(id)).state, "done");
  });
});

void describe("a stop of the server", () => {
  void it("waits for the end of running work", async () => {
    const scene = new Scene();
    const barrier = new Barrier();
    const ending = new Barrier();
    scene.outcomes.set("slow", async ({ signal }) => {
      await barrier.pass(signal);
      await ending.pass();
    });
    await scene.jobs.start("warm", "slow");
    await barrier.arrived();
    let isStopped = false;
    const stopped = scene.jobs.stop().then(() => {
      isStopped = true;
    });
    await ending.arrived();
    assert.equal(isStopped, false);
    ending.release();
    await stopped;
  });

  void it("lets no import or export begin after it", async () => {
    const scene = new Scene();
    await scene.jobs.stop();
    let isBegun = false;
    const work = scene.jobs.track(
      "import",
      new AbortController().signal,
      async () => {
        isBegun = true;
      },
    );
    await assert.rejects(
      work,
      (error) => error instanceof RegistryError && error.code === "UNAVAILABLE",
    );
    assert.equal(isBegun, false);
  });

  void it("waits for a request that is being kept", async () => {
    const index = new MemoryMetadataIndex();
    const barrier = new Barrier();
    const slow = overrideIndex(index, {
      writeRecords: async (
        ...input: Parameters<MetadataIndex["writeRecords"]>
      ) => {
        await barrier.pass();
        await index.writeRecords(...input);
      },
    });
    const scene = new Scene(slow);
    const started = scene.jobs.start("warm", "kept");
    await barrier.arrived();
    let isStopped = false;
    const stopped = scene.jobs.stop().then(() => {
      isStopped = true;
    });
    await nextTurn();
    assert.equal(isStopped, false);
    barrier.release();
    await stopped;
    const { id } = await started;
    const next = new Scene(index);
    await next.jobs.resume();
    assert.equal((await next.ended(id)).state, "done");
    assert.deepEqual([scene.started, next.started], [[], ["kept"]]);
  });
});

void describe("tracked work", () => {
  void it("is listed beside a running job, and returns what the work returns", async () => {
    const scene = new Scene();
    await scene.startHeld("held");
    const signal = new AbortController().signal;
    const report = await scene.jobs.track("import", signal, async (run) => {
      run.report({ total: 2, done: 2 });
      assert.equal(scene.jobs.get(run.id)?.state, "running");
      return "report";
    });
    assert.equal(report, "report");
    const [job] = scene.jobs.list({ n: 1, last: undefined }).items;
    assert.deepEqual([job?.kind, job?.state, job?.done], ["import", "done", 2]);
    await scene.jobs.stop();
    const next = new Scene(scene.index, false);
    await next.jobs.open();
    assert.deepEqual(next.jobs.get(job?.id ?? ""), job);
  });

  void it("is cancelled when its client leaves, by an operator, and by a stop", async () => {
    const scene = new Scene();
    const states: (string | undefined)[] = [];
    for (const end of ["client", "operator", "before", "stop"]) {
      const client = new AbortController();
      if (end === "before") client.abort();
      const barrier = new Barrier();
      const ids: string[] = [];
      const work = scene.jobs.track("export", client.signal, async (run) => {
        ids.push(run.id);
        await barrier.pass(run.signal);
        run.signal.throwIfAborted();
      });
      const rejected = assert.rejects(work, /cancelled|stops/);
      if (end !== "before") await barrier.arrived();
      if (end === "before") assert.deepEqual(ids, []);
      const [
        id = scene.jobs.list({ n: 1, last: undefined }).items[0]?.id ?? "",
      ] = ids;
      if (end === "client") client.abort();
      if (end === "operator") await scene.jobs.cancel(id);
      if (end === "stop") await scene.jobs.stop();
      await rejected;
      states.push(scene.jobs.get(id)?.state);
    }
    assert.deepEqual(states, Array(4).fill("cancelled"));
  });

  void it("fails with its error", async () => {
    const scene = new Scene();
    const error = new RegistryError("DIGEST_INVALID", { detail: "blobs/x" });
    const { signal } = new AbortController();
    await assert.rejects(
      scene.jobs.track("import", signal, () => Promise.reject(error)),
      error,
    );
    const [job] = scene.jobs.list({ n: 1, last: undefined }).items;
    assert.equal(job?.state, "failed");
    assert.deepEqual(job.errors, [{ ref: "", message: "blobs/x" }]);
  });

  void it("is limited in number", async () => {
    const scene = new Scene();
    const barrier = new Barrier();
    const { signal } = new AbortController();
    const running = Array.from({ length: 32 }, () =>
      scene.jobs.track("export", signal, () => barrier.pass()),
    );
    await assert.rejects(
      scene.jobs.track("import", signal, async () => {}),
      isTooMany,
    );
    barrier.release();
    await Promise.all(running);
    await scene.jobs.track("import", signal, async () => {});
  });
});

void describe("subscribers of jobs", () => {
  void it("receive states immediately and progress in batches", async () => {
    const scene = new Scene();
    const changes: JobChange[] = [];
    const runs: JobRun[] = [];
    const end = scene.jobs.subscribe((change) => changes.push(change));
    const barrier = new Barrier();
    scene.outcomes.set("list", (run) => {
      runs.push(run);
      return barrier.pass();
    });
    const { id } = await scene.jobs.start("warm", "list");
    await barrier.arrived();
    for (let done = 1; done <= 100; done++) runs[0]?.report({ done });
    assert.deepEqual(
      changes.map(({ job }) => job.state),
      ["queued", "running"],
    );
    assert.deepEqual(scene.schedule.delaysMs, [250]);
    scene.schedule.runNext();
    assert.equal(changes.at(-1)?.job.done, 100);
    barrier.release();
    await scene.ended(id);
    assert.deepEqual(
      changes.map(({ job, number }) => [job.state, job.done, number]),
      [
        ["queued", 0, 1],
        ["running", 0, 2],
        ["running", 100, 3],
        ["done", 100, 4],
      ],
    );
    end();
    await scene.ended((await scene.jobs.start("warm", "unseen")).id);
    assert.equal(changes.length, 4);
  });

  void it("can ask for the jobs that changed since a number", async () => {
    const scene = new Scene();
    const first = await scene.jobs.start("warm", 1);
    await scene.ended(first.id);
    const { job: second, barrier } = await scene.startHeld("second");
    const [latest] = scene.jobs.changesSince(-1).slice(-1);
    assert.deepEqual(
      scene.jobs.changesSince(-1).map(({ job }) => job.id),
      [first.id, second.id],
    );
    assert(latest !== undefined);
    assert.deepEqual(scene.jobs.changesSince(latest.number), []);
    barrier.release();
    await scene.ended(second.id);
    assert.deepEqual(
      scene.jobs
        .changesSince(latest.number)
        .map(({ job }) => [job.id, job.state]),
      [[second.id, "done"]],
    );
  });
});

function isTooMany(error: unknown): boolean {
  return error instanceof RegistryError && error.status === 429;
}

/** An index whose records can't be read or written while it fails. */
class FailingIndex {
  isFailing = false;
  readonly index: MetadataIndex;

  constructor(index: MetadataIndex) {
    const check = (): Promise<void> =>
      this.isFailing
        ? Promise.reject(new IndexError("the disk failed"))
        : Promise.resolve();
    this.index = overrideIndex(index, {
      writeRecords: (...input) =>
        check().then(() => index.writeRecords(...input)),
      listRecords: (...input) =>
        check().then(() => index.listRecords(...input)),
    });
  }
}
