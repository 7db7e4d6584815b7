import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { judgeAfterKill, KILL_SCENARIOS } from "../support/kill-scenarios.ts";
import { dropRoot, memoryRoot } from "../support/memory-root.ts";
import {
  chooseSeed,
  choosePart,
  seededRandom,
} from "../support/seeded-choice.ts";
import { soakFactor } from "../support/soak.ts";
import {
  CHANGING_CALLS,
  countCalls,
  type KillPoint,
  runKilledAt,
  type Thread,
} from "../support/syscall-killer.ts";

const PART = soakFactor(0.1);
const THREADS: readonly Thread[] = ["main", "pool"];

void describe("a process that is killed at any system call", () => {
  for (const scenario of KILL_SCENARIOS) {
    void it(`leaves a consistent root: ${scenario.name}`, async (test) => {
      const seed = chooseSeed();
      const random = seededRandom(seed);
      const template = memoryRoot();
      await scenario.prepare(template);
      const points: KillPoint[] = [];
      for (const thread of THREADS) {
        const root = memoryRoot(template);
        const counts = await countCalls(scenario.name, root, thread);
        await judgeAfterKill(root, scenario);
        dropRoot(root);
        for (const call of CHANGING_CALLS) {
          // Threads of the pool only wake the event loop.
          if (call === "write" && thread === "pool") continue;
          const count = counts.get(call) ?? 0;
          for (let nth = 1; nth <= count; nth += 1) {
            points.push({ thread, call, nth });
          }
        }
      }
      const chosen = choosePart(points, PART, random);
      let killed = 0;
      for (const point of chosen) {
        const root = memoryRoot(template);
        const end = await runKilledAt(scenario.name, root, point);
        if (end === "killed") killed += 1;
        await judgeAfterKill(root, scenario).catch((error: unknown) => {
          throw new Error(
            `seed ${seed}: killed at ${point.call} ${point.nth} of ${point.thread}; the root is ${root}`,
            { cause: error },
          );
        });
        dropRoot(root);
      }
      dropRoot(template);
      assert(killed > 0);
      test.diagnostic(
        `${scenario.name}: ${chosen.length} of ${points.length} points, ${killed} killed, 0 failures, seed ${seed}`,
      );
    });
  }
});
