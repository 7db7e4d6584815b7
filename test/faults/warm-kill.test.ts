import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { describe, it } from "node:test";
import type { Job } from "../../src/images/jobs/job.ts";
import { ChildMirror } from "../support/child-mirror.ts";
import { buildImage } from "../support/image-builder.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { chooseSeed, seededRandom } from "../support/seeded-choice.ts";
import { soakFactor } from "../support/soak.ts";
import { jobUntil, startWarm } from "../support/warm-job.ts";

const ROUNDS = Math.round(30 * soakFactor(0.1));
const IMAGES = 12;
const LAYERS = [200_000, 400_000, 50_000];
/** So that most kills interrupt downloads. */
const BYTES_PER_SECOND = 500_000;
const CONCURRENCY = 2;
/** Blobs of one image that are downloaded concurrently. */
const BLOBS_AT_ONCE = 3;
const REGISTRIES = ["one.example", "two.example"] as const;

void describe("a server that is killed during a warm job", () => {
  void it("goes on with the job after each start, and fetches no blob again that was stored", async (test) => {
    const seed = chooseSeed();
    const random = seededRandom(seed);
    let kills = 0;
    let jobs = 0;
    let again = 0;
    let twiceBytes = 0;
    let allBytes = 0;
    const upstreams = await Promise.all(
      REGISTRIES.map(() => ScriptedUpstream.start(test)),
    );
    upstreams.forEach(slowDown);
    const mirror = await ChildMirror.start(test, {
      config: {
        upstreams: Object.fromEntries(
          REGISTRIES.map((name, at) => [
            name,
            { endpoints: [upstreams[at]?.origin] },
          ]),
        ),
      },
    });
    const operate = async (
      method: string,
      path: string,
      body?: unknown,
    ): Promise<{ status: number; body: unknown }> => {
      const answer = await fetch(`${mirror.operatorOrigin}/api/v1${path}`, {
        method,
        ...(body === undefined
          ? {}
          : {
              body: JSON.stringify(body),
              headers: { "content-type": "application/json" },
            }),
      });
      return { status: answer.status, body: await answer.json() };
    };
    while (kills < ROUNDS) {
      const name = `${seed}/${jobs}`;
      jobs += 1;
      const images = upstreams.map((upstream, at) =>
        Array.from({ length: IMAGES }, (_, index) => {
          const image = buildImage({
            seed: `${name}/${at}/${index}`,
            layers: LAYERS,
          });
          upstream.content.addImage(`job${jobs}/app`, image, `t${index}`);
          return image;
        }),
      );
      for (const upstream of upstreams) upstream.forgetRequests();
      const refs = REGISTRIES.flatMap((registry) =>
        Array.from(
          { length: IMAGES },
          (_, index) => `${registry}/job${jobs}/app:t${index}`,
        ),
      );
      const { id } = await startWarm(
        { operate },
        { refs, concurrency: CONCURRENCY },
      );
      let killsOfJob = 0;
      let job: Job | undefined;
      while (job === undefined) {
        const isKilled =
          kills < ROUNDS &&
          (await endsWithin(operate, id, Math.floor(random() * 1_000))) ===
            undefined;
        if (!isKilled) {
          job = await jobUntil(
            { operate },
            id,
            ({ endedAt }) => endedAt !== null,
          );
          break;
        }
        await mirror.kill();
        kills += 1;
        killsOfJob += 1;
        await mirror.start();
      }
      assert.deepEqual(
        [job.state, job.done, job.total, job.errors],
        ["done", refs.length, refs.length, []],
        `seed ${seed}, job ${jobs}`,
      );
      // A download that a kill interrupts is resumed, or begun again: one for each that ran.
      for (const [at, upstream] of upstreams.entries()) {
        const blobs = images[at]?.flatMap((image) => image.blobs) ?? [];
        const bytes = blobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
        const requests = upstream.count({ kind: "blob", method: "GET" });
        const resumed =
          requests - new Set(blobs.map(({ digest }) => digest)).size;
        again += resumed;
        allBytes += bytes;
        twiceBytes += upstream.bytesSent({ kind: "blob" }) - bytes;
        const limit = killsOfJob * CONCURRENCY * BLOBS_AT_ONCE;
        assert.ok(
          resumed <= limit,
          `seed ${seed}, job ${jobs}: ${resumed} downloads continued after ${killsOfJob} kills`,
        );
        assert.ok(
          upstream.bytesSent({ kind: "blob" }) <=
            bytes + limit * Math.max(...LAYERS),
        );
      }
      for (const upstream of upstreams) {
        upstream.clearRules();
        upstream.when({}, { status: 503 });
      }
      for (const [at, registry] of REGISTRIES.entries()) {
        for (const { blobs } of images[at] ?? []) {
          for (const { digest } of blobs) {
            const answer = await fetch(
              `${mirror.origin}/${registry}/v2/job${jobs}/app/blobs/${digest}`,
            );
            assert.equal(answer.status, 200, `seed ${seed}: ${digest}`);
            await answer.body?.cancel();
          }
        }
      }
      for (const upstream of upstreams) {
        upstream.clearRules();
        slowDown(upstream);
      }
    }
    await mirror.terminate();
    test.diagnostic(
      `${kills} kills in ${jobs} jobs of ${IMAGES * REGISTRIES.length} images: ${again} downloads continued, ${twiceBytes} of ${allBytes} bytes fetched twice, seed ${seed}`,
    );
  });
});

function slowDown(upstream: ScriptedUpstream): void {
  upstream.when({ kind: "blob" }, { bytesPerSecond: BYTES_PER_SECOND });
}

/** Returns the job if it ends within a time. */
async function endsWithin(
  operate: (
    method: string,
    path: string,
  ) => Promise<{ readonly body: unknown }>,
  id: string,
  durationMs: number,
): Promise<Job | undefined> {
  await delay(durationMs);
  const { body } = await operate("GET", `/jobs/${id}`);
  const job = body as Job;
  return job.endedAt === null ? undefined : job;
}
