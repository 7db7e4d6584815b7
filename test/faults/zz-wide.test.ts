import assert from "node:assert/strict";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { TakeoverCounts } from "../../src/images/takeover/takeover.ts";
import { scrubRoot } from "../../src/storage/local/upkeep/scrub-root.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import {
  describeFolder,
  DistributionTree,
} from "../support/distribution-tree.ts";
import { buildImage } from "../support/image-builder.ts";
import { killAtEachCall } from "../support/kill-at-each-call.ts";
import { soakFactor } from "../support/soak.ts";
import {
  judgeTakeover,
  prepareTakeover,
  runTakeoverIn,
  TAKEOVER_KILL_SCENARIOS,
} from "../support/takeover-kill-scenarios.ts";
import { tempDir } from "../support/temp-dir.ts";
import { Tmpfs } from "../support/tmpfs.ts";

/** Those that change or publish something: files are opened to be read, too. */
const CALLS = [
  "pwrite64",
  "fsync",
  "fdatasync",
  "rename",
  "link",
  "unlink",
] as const;

void describe("a take-over that is killed at any system call", () => {
  for (const scenario of TAKEOVER_KILL_SCENARIOS) {
    void it(`continues, and changes nothing in the folder: ${scenario.name}`, async (test) => {
      const { killed, summary } = await killAtEachCall({
        name: scenario.name,
        calls: CALLS,
        part: soakFactor(0.12),
        prepare: prepareTakeover,
        judge: (dir) => judgeTakeover(dir, scenario),
      });
      assert(killed > 0);
      test.diagnostic(summary);
    });
  }
});

void describe("a take-over to another file system that fills up", () => {
  for (const registry of ["docker.io", "local"] as const) {
    void it(`ends with the reason, and continues once there is room: ${registry}`, async (test) => {
      const dir = await tempDir(test);
      const disk = await Tmpfs.mount(test, "size=32m");
      const tree = new DistributionTree(join(dir, "registry"));
      const layers = [12_000_000, 13_000_000, 14_000_000];
      const image = buildImage({ seed: "large", layers });
      tree.putImage("library/app", image, "1");
      const root = join(disk.path, "data");
      await writeFile(
        join(dir, "entrepot.yaml"),
        JSON.stringify({
          operator: { listen: false },
          storage: { root },
          eviction: { maxSize: "1GiB", minFree: 0 },
        }),
      );
      const before = describeFolder(tree.root);
      const full = await runTakeoverIn(dir, registry);
      assert.equal(full.code, 1);
      assert.match(
        full.stderr,
        /^entrepot: storage: \w+ failed with ENOSPC; make room .* continues\n$/,
      );
      assert.deepEqual(await readdir(join(root, "partial")), ["boot-id"]);
      await disk.remount("size=96m");
      const again = await runTakeoverIn(dir, registry);
      assert.deepEqual([again.code, again.stderr], [0, ""]);
      const { tags, copiedBlobs, presentBlobs } = JSON.parse(
        again.stdout,
      ) as TakeoverCounts;
      assert.equal(tags, 1);
      assert(copiedBlobs < 5 && copiedBlobs + presentBlobs === 5);
      assert.deepEqual(describeFolder(tree.root), before);
      const clock = systemClock;
      const { findings } = await scrubRoot({ root, clock, isRepair: false });
      assert.deepEqual(findings, []);
    });
  }
});
