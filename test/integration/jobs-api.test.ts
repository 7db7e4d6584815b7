import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { Job } from "../../src/images/jobs/job.ts";
import { AuditFile } from "../support/audit-file.ts";
import { endedJob, keepJob } from "../support/kept-jobs.ts";
import { startMirror } from "../support/mirror-harness.ts";
import { tempDir } from "../support/temp-dir.ts";

const OLD = "0mjuohs00";
const NEW = "0mjuohs01";

interface JobPage {
  readonly items: readonly Job[];
  readonly next: string | null;
}

void describe("the operator API of jobs", () => {
  void it("lists jobs of earlier processes newest first, in pages, and returns one", async (test) => {
    const mirror = await startMirror(test, []);
    assert.deepEqual(await mirror.operate("GET", "/jobs"), {
      status: 200,
      body: { items: [], next: null },
    });
    await keepJob(mirror, OLD);
    await keepJob(mirror, NEW);
    await endedJob(mirror, NEW);
    const { body: one } = await mirror.operate("GET", "/jobs?n=1");
    const first = one as JobPage;
    assert.deepEqual(
      [first.items.map(({ id }) => id), first.next],
      [[NEW], NEW],
    );
    const { body: two } = await mirror.operate("GET", `/jobs?n=5&last=${NEW}`);
    const rest = two as JobPage;
    assert.deepEqual(
      [rest.items.map(({ id }) => id), rest.next],
      [[OLD], null],
    );
    const { body } = await mirror.operate("GET", `/jobs/${OLD}`);
    assert.deepEqual(body, rest.items[0]);
    for (const [path, status] of [
      ["/jobs?n=0", 400],
      ["/jobs?n=1&n=2", 400],
      ["/jobs/absent", 404],
      ["/jobs/..%2Fstatus", 404],
    ] as const) {
      assert.equal((await mirror.operate("GET", path)).status, status, path);
    }
  });

  void it("does not change a job that has ended, and records no order then", async (test) => {
    const audit = new AuditFile(join(await tempDir(test), "audit.jsonl"));
    const mirror = await startMirror(test, [], {
      config: { audit: { file: audit.path } },
    });
    await keepJob(mirror, OLD);
    const before = await endedJob(mirror, OLD);
    assert.equal(before.state, "failed");
    const cancelled = await mirror.operate("DELETE", `/jobs/${OLD}`);
    assert.deepEqual(cancelled, { status: 200, body: before });
    assert.equal((await mirror.operate("DELETE", "/jobs/absent")).status, 404);
    await mirror.close();
    const events = (await audit.records()).map(({ event }) => event);
    assert.deepEqual(
      events.filter((event) => event === "job-cancelled"),
      [],
    );
  });
});
