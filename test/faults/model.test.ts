import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { describe, it } from "node:test";
import { ModelRun } from "../support/model-run.ts";
import { chooseSeed, seededRandom } from "../support/seeded-choice.ts";
import { soakFactor } from "../support/soak.ts";

const STEPS = Math.round(10_000 * soakFactor(0.1));
const QUIET_EVERY = 50;

void describe("a seeded run of all faults of a cache", () => {
  void it(`agrees with a model at each idle point of ${STEPS} steps`, async (test) => {
    const seed = chooseSeed();
    const run = new ModelRun(seededRandom(seed));
    const openBefore = readdirSync("/proc/self/fd").length;
    await run.start();
    let step = 0;
    try {
      for (; step < STEPS; step += 1) {
        await run.step();
        if (step % QUIET_EVERY === QUIET_EVERY - 1) await run.judge();
      }
    } catch (error) {
      throw new Error(`seed ${seed}, step ${step}`, { cause: error });
    }
    await run.end();
    const openAfter = readdirSync("/proc/self/fd").length;
    assert(openAfter <= openBefore + 2, `${openBefore} -> ${openAfter}`);
    const counts = [...run.steps].map(([name, count]) => `${name} ${count}`);
    test.diagnostic(`seed ${seed}; ${counts.join(", ")}`);
  });
});
