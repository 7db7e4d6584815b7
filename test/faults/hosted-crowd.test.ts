import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { releaseAfter } from "../support/after-test.ts";
import { ChildMirror } from "../support/child-mirror.ts";
import { HostedCrowd } from "../support/hosted-crowd.ts";
import { seededRandom } from "../support/random.ts";
import { chooseSeed } from "../support/seeded-choice.ts";
import { soakFactor } from "../support/soak.ts";

const CLIENTS = 64;
const DURATION_MS = 600_000 * soakFactor(0.1);
/** A minute; five of them where other work runs on the machine. */
const FREED_WITHIN_MS = soakFactor(5) * 60_000;

void describe("clients that push, pull and delete at the same time", () => {
  void it("see no error and no wrong byte, and space is back after the last delete", async (test) => {
    const seed = chooseSeed();
    test.diagnostic(`seed ${seed}`);
    const mirror = await ChildMirror.start(test, {
      config: { upstreams: {} },
    });
    const crowd = new HostedCrowd(`${mirror.origin}/v2/local`, {
      random: seededRandom(seed),
      maxLive: CLIENTS / 8,
    });
    releaseAfter(test, () => crowd.close());
    const endMs = performance.now() + DURATION_MS;
    const isOver = (): boolean =>
      performance.now() > endMs || crowd.faults.length > 0;
    await Promise.all(
      Array.from({ length: CLIENTS }, () => [
        crowd.pushUntil(isOver),
        crowd.pullUntil(isOver),
      ]).flat(),
    );
    test.diagnostic(JSON.stringify(crowd.done));
    assert.deepEqual(crowd.faults, []);
    await crowd.deleteAll();
    assert.deepEqual(crowd.faults, []);

    const startMs = performance.now();
    const files = (): number =>
      readdirSync(join(mirror.root, "blobs/sha256")).length;
    while (files() > 0 && performance.now() - startMs < FREED_WITHIN_MS)
      await delay(200);
    test.diagnostic(
      `freed after ${Math.round(performance.now() - startMs)} ms`,
    );
    assert.equal(files(), 0);
    assert.match(await mirror.metrics(), /^entrepot_storage_bytes 0$/m);
    const faults = mirror.logs.filter(
      ({ level }) => level === "error" || level === "warn",
    );
    assert.deepEqual(faults, []);
    assert.ok(crowd.done.pull > 0 && crowd.done.delete > 0);
  });
});
