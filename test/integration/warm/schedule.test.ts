import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { Config } from "../../../src/config/config.ts";
import type { Job } from "../../../src/images/jobs/job.ts";
import type { Schedule } from "../../../src/telemetry/clock.ts";
import { Counter } from "../../support/barrier.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { buildImage } from "../../support/image-builder.ts";
import { startMirror, upstreamOf } from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { jobUntil } from "../../support/warm-job.ts";

const HOUR_MS = 3_600_000;

void describe("warm lists of the configuration", () => {
  void it("are fetched when they are due, and after a reload as it says", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("library/app", buildImage({ seed: "s" }), "1");
    const list = join(await tempDir(test), "images.txt");
    await writeFile(list, "registry.example/app:1\n");
    const clock = new FakeClock(new Date(2026, 5, 1, 1, 0).getTime());
    const checks = new Counter();
    let count = 0;
    let next: (() => void) | undefined;
    const warmSchedule: Schedule = (run) => {
      next = run;
      count += 1;
      checks.notify();
      return () => (next = undefined);
    };
    const entry = (schedule: string): Config["warm"][number] => ({
      schedule,
      list,
      platforms: [],
      withReferrers: false,
      pin: true,
    });
    const mirror = await startMirror(
      test,
      [upstreamOf(upstream, { libraryPrefix: true })],
      { clock, warmSchedule, config: { warm: [entry("0 2 * * *")] } },
    );
    const checked = async (): Promise<void> => {
      const wanted = count + 1;
      next?.();
      await checks.until(
        () => count >= wanted,
        () => "the lists were not checked",
      );
    };
    const jobs = async (): Promise<readonly Job[]> => {
      const { body } = await mirror.operate("GET", "/jobs");
      return (body as { readonly items: readonly Job[] }).items;
    };
    await checks.until(
      () => count > 0,
      () => "the lists are not checked",
    );
    clock.advance(HOUR_MS);
    await checked();
    const [first] = await jobs();
    assert(first !== undefined);
    const ended = await jobUntil(
      mirror,
      first.id,
      ({ endedAt }) => endedAt !== null,
    );
    assert.deepEqual([ended.state, ended.done], ["done", 1]);
    const { body } = await mirror.operate(
      "GET",
      "/images/registry.example/app:1",
    );
    assert.equal((body as { readonly pinned: boolean }).pinned, true);
    assert.deepEqual(await mirror.reload({ warm: [entry("0 4 * * *")] }), [
      "warm",
    ]);
    await checked();
    clock.advance(HOUR_MS);
    await checked();
    assert.equal((await jobs()).length, 1);
    clock.advance(HOUR_MS);
    await checked();
    assert.equal((await jobs()).length, 2);
  });
});
