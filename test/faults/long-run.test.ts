import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { scrubRoot } from "../../src/storage/local/upkeep/scrub-root.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { growthOf, judgeBaseline } from "../support/baseline.ts";
import { LongRun } from "../support/long-run.ts";
import { chooseSeed, seededRandom } from "../support/seeded-choice.ts";
import { soakFactor } from "../support/soak.ts";

const MIB = 1024 * 1024;
const FACTOR = soakFactor(0.1);
const HOURS = FACTOR === 1 ? 24 : 9;
/** The shorter of the two ends an hour; outstanding answers follow within 18 s. */
const HOUR =
  FACTOR === 1
    ? { hourMs: 18_000, actsAnHour: 2_000 }
    : { hourMs: 5_000, actsAnHour: 200 };
/** Until then code is compiled, and pools and buffers reach their size. */
const WARM_UP_HOURS = FACTOR === 1 ? 4 : 3;
/**
 * A leak per request or per fault would exceed 16 MiB of live memory: a day has some fifty thousand
 * requests and four thousand faults. Resident memory grows in steps of up to 24 MiB to its peak, of
 * which the windows of downloads are 64 MiB.
 */
const BOUNDS = {
  descriptors: 2,
  liveGrowthBytes: 16 * MIB,
  residentGrowthBytes: 64 * MIB,
};

void describe("a day of all faults of a mirror", () => {
  void it("leaves descriptors, memory and partials at their baseline, and no unhandled rejection", async (test) => {
    const seed = chooseSeed();
    test.diagnostic(`seed ${seed}`);
    const run = await LongRun.start(test, {
      random: seededRandom(seed),
      ...HOUR,
    });
    for (let hour = 0; hour < HOURS; hour += 1) await run.hour();
    const complete = await run.end();
    const { findings } = await scrubRoot({
      root: run.root,
      clock: systemClock,
      isRepair: false,
    });
    await run.pullOffline(test, complete);
    const points = run.points.slice(WARM_UP_HOURS);
    test.diagnostic(JSON.stringify(Object.fromEntries(run.crowd.done)));
    test.diagnostic(JSON.stringify(Object.fromEntries(run.storm.dealt)));
    test.diagnostic(
      run.points
        .map(
          ({ files, sockets, partials, liveBytes, rssBytes }) =>
            `${files}+${sockets} ${partials} ${(liveBytes / MIB).toFixed(1)}/${(rssBytes / MIB).toFixed(0)}`,
        )
        .join(", "),
    );
    test.diagnostic(
      `seed ${seed}: ${complete.length} images pulled offline, ` +
        `${(growthOf(points, "liveBytes") / MIB).toFixed(1)} MiB more live and ` +
        `${(growthOf(points, "rssBytes") / MIB).toFixed(1)} more resident in the last third`,
    );
    assert.deepEqual(
      [
        ...run.crowd.faults,
        ...run.faults,
        ...findings,
        ...judgeBaseline(points, BOUNDS),
      ],
      [],
    );
    assert.ok(complete.length > 0);
    assert.ok((run.crowd.done.get("whole pulls") ?? 0) > HOURS);
  });

  void it("detects a leak", async (test) => {
    const run = await LongRun.start(test, {
      random: seededRandom(chooseSeed()),
      hourMs: 5_000,
      actsAnHour: 60,
      leaks: "descriptors,memory,warnings",
    });
    for (let hour = 0; hour < 3; hour += 1) await run.hour();
    await run.end();
    const faults = [...run.faults, ...judgeBaseline(run.points, BOUNDS)];
    for (const leak of [/^open files/, /^live/, /Warning/]) {
      assert.ok(
        faults.some((fault) => leak.test(fault)),
        `${leak.source}: ${faults.join("; ")}`,
      );
    }
  });
});
