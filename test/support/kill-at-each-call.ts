import { dropRoot, memoryRoot } from "./memory-root.ts";
import { choosePart, chooseSeed, seededRandom } from "./seeded-choice.ts";
import { soakFactor } from "./soak.ts";
import {
  CHANGING_CALLS,
  countCalls,
  type KillPoint,
  runKilledAt,
  type Thread,
} from "./syscall-killer.ts";

const PART = soakFactor(0.1);
const THREADS: readonly Thread[] = ["main", "pool"];

/**
 * Runs a scenario once for each system call that changes something, kills it there, and judges the
 * root. Without a soak a tenth of the calls is chosen at random.
 *
 * @throws what `judge` throws, with the seed and the call
 */
export async function killAtEachCall({
  name,
  calls = CHANGING_CALLS,
  part = PART,
  prepare,
  judge,
}: {
  readonly name: string;
  /** Kinds of calls at which it is killed. */
  readonly calls?: readonly KillPoint["call"][];
  /** The part of them that is chosen; default: a tenth, and all in a soak. */
  readonly part?: number;
  readonly prepare: (root: string) => Promise<void>;
  readonly judge: (root: string) => Promise<void>;
}): Promise<{ readonly killed: number; readonly summary: string }> {
  const seed = chooseSeed();
  const random = seededRandom(seed);
  const template = memoryRoot();
  await prepare(template);
  const points: KillPoint[] = [];
  for (const thread of THREADS) {
    const root = memoryRoot(template);
    const counts = await countCalls(name, root, thread);
    await judge(root);
    dropRoot(root);
    for (const call of calls) {
      // Threads of the pool only wake the event loop.
      if (call === "write" && thread === "pool") continue;
      const count = counts.get(call) ?? 0;
      for (let nth = 1; nth <= count; nth += 1) {
        points.push({ thread, call, nth });
      }
    }
  }
  const chosen = choosePart(points, part, random);
  let killed = 0;
  for (const point of chosen) {
    const root = memoryRoot(template);
    const end = await runKilledAt(name, root, point);
    if (end === "killed") killed += 1;
    await judge(root).catch((error: unknown) => {
      throw new Error(
        `seed ${seed}: killed at ${point.call} ${point.nth} of ${point.thread}; the root is ${root}`,
        { cause: error },
      );
    });
    dropRoot(root);
  }
  dropRoot(template);
  return {
    killed,
    summary: `${name}: ${chosen.length} of ${points.length} points, ${killed} killed, 0 failures, seed ${seed}`,
  };
}
