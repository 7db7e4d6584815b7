import assert from "node:assert/strict";
import { PassThrough, type Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { describe, it } from "node:test";
import { TrackedExports } from "../../../../src/images/bundles/export/tracked-exports.ts";
import type { JobProgress, Jobs } from "../../../../src/images/jobs/job.ts";
import { digestOf } from "../../../../src/oci/digest.ts";
import { RegistryError } from "../../../../src/oci/errors.ts";
import { NO_AUDIT } from "../../../../src/telemetry/audit.ts";
import { ManualSchedule } from "../../../support/manual-schedule.ts";

const REQUEST = {
  refs: ["one.example/app:1"],
  lists: [],
  platforms: [],
  withReferrers: false,
  since: undefined,
};
const NEVER = new AbortController().signal;

/** Exports of bundles of which the test writes the archive. */
function setUp() {
  const archives: PassThrough[] = [];
  const noteBytes: ((bytes: number) => void)[] = [];
  const progress: Partial<JobProgress>[] = [];
  const ends: Promise<unknown>[] = [];
  const schedule = new ManualSchedule();
  const jobs: Pick<Jobs, "track"> = {
    track: async (_kind, signal, work) => {
      const ended = work({
        id: "job",
        signal,
        report: (reported) => void progress.push(reported),
        fail: () => undefined,
        note: () => undefined,
      });
      ends.push(ended.catch((error: unknown) => error));
      return ended;
    },
  };
  const exports = new TrackedExports({
    open: (_request, { onBytes }) => {
      const archive = new PassThrough();
      archives.push(archive);
      noteBytes.push(onBytes ?? (() => assert.fail()));
      return Promise.resolve({
        archive,
        report: {
          images: [{ ref: "one.example/app:1", digest: digestOf(Buffer.of()) }],
          blobs: 1,
          bytes: 30,
          omittedBlobs: 0,
          omittedBytes: 0,
          indexDigest: digestOf(Buffer.of()),
        },
      });
    },
    jobs,
    audit: NO_AUDIT,
    schedule: schedule.start,
  });
  return { exports, archives, noteBytes, progress, ends, schedule };
}

function detailOf(error: unknown): string | undefined {
  assert(error instanceof RegistryError, String(error));
  return error.detail;
}

async function end(archive: Readable | undefined): Promise<void> {
  assert(archive instanceof PassThrough);
  archive.end();
  await buffer(archive);
}

void describe("exports of a running mirror", () => {
  void it("report what was read, and are done when the archive is", async () => {
    const { exports, archives, noteBytes, progress, ends } = setUp();
    const { job } = await exports.start(REQUEST, "client", NEVER);
    assert.equal(job, "job");
    noteBytes[0]?.(10);
    noteBytes[0]?.(20);
    await end(archives[0]);
    assert.equal(await ends[0], undefined);
    assert.deepEqual(progress, [
      { total: 1, bytesTotal: 30 },
      { bytes: 10 },
      { bytes: 30 },
      { done: 1 },
    ]);
  });

  void it("are limited in number", async () => {
    const { exports, archives, ends } = setUp();
    for (let left = 8; left > 0; left--) {
      await exports.start(REQUEST, "client", NEVER);
    }
    await assert.rejects(
      exports.start(REQUEST, "client", NEVER),
      (error) =>
        detailOf(error) ===
        "got another export; expected at most 8 at a time: try again later",
    );
    await end(archives[3]);
    await ends[3];
    await exports.start(REQUEST, "client", NEVER);
  });

  void it("fail if their client leaves, or the job is cancelled", async () => {
    const { exports, archives, ends } = setUp();
    await exports.start(REQUEST, "client", NEVER);
    archives[0]?.destroy();
    assert.equal(detailOf(await ends[0]), "the client left early");
    const abort = new AbortController();
    await exports.start(REQUEST, "client", abort.signal);
    abort.abort(new Error("the job was cancelled"));
    assert.equal(detailOf(await ends[1]), "the job was cancelled");
    assert.equal(archives[1]?.destroyed, true);
  });

  void it("fail if their client reads nothing for ten minutes", async () => {
    const { exports, archives, noteBytes, ends, schedule } = setUp();
    await exports.start(REQUEST, "client", NEVER);
    noteBytes[0]?.(10);
    assert.deepEqual(schedule.delaysMs, [600_000]);
    schedule.runNext();
    assert.equal(detailOf(await ends[0]), "the client read nothing for 600 s");
    assert.equal(archives[0]?.destroyed, true);
  });
});
