import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fastify from "fastify";
import { SHARED_SCHEMAS } from "../../../../src/http/operator/api-schemas.ts";
import { warmApi } from "../../../../src/http/operator/api-warm.ts";
import { ServerJobs } from "../../../../src/images/jobs/server-jobs.ts";
import { RegistryError } from "../../../../src/oci/errors.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";
import { Barrier } from "../../../support/barrier.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { MemoryMetadataIndex } from "../../../support/memory-index/memory-metadata-index.ts";
import { quietLog } from "../../../support/pulling-mirror.ts";

/** The route on a real socket, with dry runs that end when the test releases them. */
async function setUp(test: AfterTest, barrier: Barrier) {
  const app = fastify();
  for (const [$id, schema] of Object.entries(SHARED_SCHEMAS)) {
    app.addSchema({ $id, ...schema });
  }
  app.setSerializerCompiler(() => JSON.stringify);
  app.setErrorHandler((error, _request, reply) =>
    reply.code(error instanceof RegistryError ? error.status : 500).send(),
  );
  const jobs = new ServerJobs({
    records: new MemoryMetadataIndex(),
    works: {},
    clock: new FakeClock(),
    log: quietLog,
  });
  const signals: AbortSignal[] = [];
  void app.register(warmApi, {
    jobs,
    audit: { record: () => undefined },
    planWarm: async (_order, signal) => {
      signals.push(signal);
      await barrier.pass(signal);
      return {
        images: [],
        upstreams: [],
        errors: [],
        errorCount: 0,
        notes: [],
      };
    },
  });
  releaseAfter(test, async () => {
    barrier.release();
    app.server.closeAllConnections();
    await app.close();
  });
  const origin = await app.listen({ host: "127.0.0.1", port: 0 });
  const dryRun = (signal?: AbortSignal): Promise<Response> =>
    fetch(`${origin}/api/v1/warm`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ refs: ["app:1"], dryRun: true }),
      signal: signal ?? null,
    });
  return { dryRun, signals };
}

void describe("dry runs", () => {
  void it("are four at a time, and one whose client leaves makes room", async (test) => {
    const barrier = new Barrier();
    const { dryRun, signals } = await setUp(test, barrier);
    const leaving = new AbortController();
    const left = assert.rejects(dryRun(leaving.signal));
    await barrier.arrived(1);
    const running = [dryRun(), dryRun(), dryRun()];
    await barrier.arrived(4);
    assert.equal((await dryRun()).status, 429);
    const [first] = signals;
    assert(first !== undefined);
    const ended = new Promise((resolve) => {
      first.addEventListener("abort", resolve, { once: true });
    });
    leaving.abort();
    await left;
    await ended;
    running.push(dryRun());
    await barrier.arrived(5);
    barrier.release();
    const answers = await Promise.all(running);
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200, 200, 200],
    );
  });
});
