import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fastify from "fastify";
import {
  eventsApi,
  eventsOf,
} from "../../../../src/http/operator/api-events.ts";
import { jobsApi } from "../../../../src/http/operator/api-jobs.ts";
import { SHARED_SCHEMAS } from "../../../../src/http/operator/api-schemas.ts";
import type { Job, JobWork } from "../../../../src/images/jobs/job.ts";
import { ServerJobs } from "../../../../src/images/jobs/server-jobs.ts";
import type { AuditEvent } from "../../../../src/telemetry/audit.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";
import { Barrier } from "../../../support/barrier.ts";
import { EventReader } from "../../../support/event-reader.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { ManualSchedule } from "../../../support/manual-schedule.ts";
import { MemoryMetadataIndex } from "../../../support/memory-index/memory-metadata-index.ts";
import { quietLog } from "../../../support/pulling-mirror.ts";

/** The routes of jobs on a real socket, with work that the test controls. */
async function setUp(test: AfterTest, work: JobWork) {
  const schedule = new ManualSchedule();
  const jobs = new ServerJobs({
    records: new MemoryMetadataIndex(),
    works: { warm: () => Promise.resolve(work) },
    clock: new FakeClock(),
    log: quietLog,
    schedule: schedule.start,
  });
  await jobs.resume();
  const audited: AuditEvent[] = [];
  const audit = { record: (event: AuditEvent) => void audited.push(event) };
  const app = fastify();
  for (const [$id, schema] of Object.entries(SHARED_SCHEMAS)) {
    app.addSchema({ $id, ...schema });
  }
  app.setSerializerCompiler(() => JSON.stringify);
  void app.register(jobsApi, { jobs, audit });
  void app.register(eventsApi, { jobs });
  releaseAfter(test, async () => {
    await jobs.stop();
    app.server.closeAllConnections();
    await app.close();
  });
  const origin = await app.listen({ host: "127.0.0.1", port: 0 });
  return { jobs, audited, schedule, origin };
}

void describe("the routes of jobs", () => {
  void it("cancel a running job, and record the order once", async (test) => {
    const barrier = new Barrier();
    const { jobs, audited, origin } = await setUp(test, (_request, run) =>
      barrier.pass(run.signal),
    );
    const { id } = await jobs.start("warm", {});
    await barrier.arrived();
    const states: (string | undefined)[] = [];
    for (let n = 0; n < 2; n++) {
      const answer = await fetch(`${origin}/api/v1/jobs/${id}`, {
        method: "DELETE",
      });
      states.push(((await answer.json()) as Job).state);
    }
    assert.deepEqual(states, ["cancelled", "cancelled"]);
    assert.deepEqual(audited, [
      { event: "job-cancelled", client: "127.0.0.1", job: id },
    ]);
  });

  void it("stream each change of a job to two clients", async (test) => {
    const barrier = new Barrier();
    const { jobs, schedule, origin } = await setUp(
      test,
      async (_request, run) => {
        run.report({ total: 2, done: 1 });
        await barrier.pass();
      },
    );
    const readers = [
      await EventReader.open(test, origin),
      await EventReader.open(test, origin),
    ];
    await jobs.start("warm", {});
    await barrier.arrived();
    for (const reader of readers) {
      const { done } = await reader.until(({ state }) => state === "running");
      assert.equal(done, 0);
    }
    schedule.runNext();
    for (const reader of readers) {
      const { total } = await reader.until(({ done }) => done === 1);
      assert.equal(total, 2);
    }
    barrier.release();
    for (const reader of readers) {
      const { done } = await reader.until(({ state }) => state === "done");
      assert.equal(done, 1);
    }
  });
});

function idleJobs(): ServerJobs {
  return new ServerJobs({
    records: new MemoryMetadataIndex(),
    works: {},
    clock: new FakeClock(),
    log: quietLog,
  });
}

void describe("the events for one client", () => {
  void it("are the latest state of each job if the client reads slowly", async () => {
    const source = idleJobs();
    const { signal } = new AbortController();
    const events = eventsOf(source, "run", -1, signal);
    assert.match(String((await events.next()).value), /^retry: /);
    const one = await source.start("warm", 1);
    const two = await source.start("warm", 2);
    await source.cancel(one.id);
    const texts = [await events.next(), await events.next()].map(({ value }) =>
      String(value),
    );
    assert.match(texts[0] ?? "", new RegExp(`"id":"${two.id}".*"queued"`));
    assert.match(texts[1] ?? "", new RegExp(`"id":"${one.id}".*"cancelled"`));
    assert.match(texts[0] ?? "", /^event: job\nid: run\.2\ndata: \{.*\}\n\n$/);
    await events.return(undefined);
  });

  void it("are comments while nothing changes, and end with the client", async () => {
    const abort = new AbortController();
    const events = eventsOf(idleJobs(), "run", -1, abort.signal, 1);
    await events.next();
    assert.equal((await events.next()).value, ":\n\n");
    const waiting = eventsOf(idleJobs(), "run", -1, abort.signal, 60_000);
    await waiting.next();
    const last = waiting.next();
    abort.abort();
    assert.equal((await last).done, true);
    assert.equal((await events.next()).done, true);
  });
});
