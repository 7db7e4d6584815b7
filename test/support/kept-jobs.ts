import assert from "node:assert/strict";
import { join } from "node:path";
import { systemClock } from "../../src/telemetry/clock.ts";
import { openSqliteIndex } from "../../src/storage/local/index/open-sqlite-index.ts";
import type { Job } from "../../src/images/jobs/job.ts";
import type { TestMirror } from "./mirror-harness.ts";

/**
 * Leaves a job in the index, as a process that was killed does, and starts the mirror again.
 *
 * @param record as `KeptRecord.text`; by default of a kind that ends immediately
 */
export async function keepJob(
  mirror: Pick<TestMirror, "root" | "close" | "open">,
  id: string,
  record: unknown = { kind: "import", request: null },
): Promise<void> {
  await mirror.close();
  const { index } = openSqliteIndex({
    path: join(mirror.root, "index.sqlite"),
    clock: systemClock,
  });
  const text = JSON.stringify(record);
  await index.writeRecords("job", [{ id, text }], []);
  await index.close();
  await mirror.open();
}

/** Returns a job when it has ended. */
export async function endedJob(
  mirror: Pick<TestMirror, "operate">,
  id: string,
): Promise<Job> {
  for (;;) {
    const { status, body } = await mirror.operate("GET", `/jobs/${id}`);
    assert.equal(status, 200);
    const job = body as Job;
    if (job.endedAt !== null) return job;
  }
}
