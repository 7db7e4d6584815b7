import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { StorageError } from "../../src/storage/blob-store.ts";
import { openLocalStorage } from "../../src/storage/local/open-local-storage.ts";
import { scrubRoot } from "../../src/storage/local/upkeep/scrub-root.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { keyOf, tag } from "../contract/metadata-index-contract.ts";
import { FaultyFileSystem } from "../support/faulty-file-system.ts";
import { buildImage } from "../support/image-builder.ts";
import { dropRoot, memoryRoot } from "../support/memory-root.ts";
import { mirrorOver, pull, quietLog } from "../support/pulling-mirror.ts";
import { ScriptedRegistry } from "../support/scripted-client.ts";
import { chooseSeed, seededRandom } from "../support/seeded-choice.ts";
import { soakFactor } from "../support/soak.ts";
import { storeImage } from "../support/stored-images.ts";

const CODES = ["ENOSPC", "EIO", "EROFS", "EMFILE"] as const;
/** The faults of calls that only read. */
const ONLY_LOOKS = new Set(["read", "stat", "statPath", "list", "eachName"]);
const CALLS = [
  "open",
  "stat",
  "read",
  "writev",
  "truncate",
  "fdatasync",
  "fsync",
  "rename",
  "unlink",
  "statPath",
  "makePrivate",
  "makeFolder",
  "list",
  "eachName",
  "removeTree",
] as const;
/** More than the calls of any kind; each kind ends with the first run without its fault. */
const MAX_CALLS = 60;
const PART = soakFactor(0.1);

const app = keyOf("docker.io", "library/app");
const kept = buildImage({ seed: "nth/kept", layers: [9_000, 150_000] });
const wanted = buildImage({
  seed: "nth/new",
  layers: [...kept.layers.slice(1), 40_000, 1_100_000],
});

interface Ended {
  /** Whether the fault occurred. */
  readonly isHit: boolean;
  /** Whether the root could not be opened because of it. */
  readonly isRefused: boolean;
}

/** Opens the root of a killed process, pulls a cached and an uncached image, and closes. */
async function run(root: string, faults: FaultyFileSystem): Promise<boolean> {
  let cache;
  try {
    cache = await openLocalStorage({
      root,
      clock: systemClock,
      log: quietLog,
      fileSystem: faults.fileSystem,
    });
  } catch (error) {
    assert(error instanceof StorageError, String(error));
    return true;
  }
  const registry = new ScriptedRegistry();
  registry.push(app, kept, tag("kept"));
  registry.push(app, wanted, tag("new"));
  const mirror = mirrorOver(cache, registry, { clock: systemClock });
  // Every pull delivers every byte, regardless of the disk.
  for (const [name, image] of [
    ["kept", kept],
    ["new", wanted],
    ["new", wanted],
  ] as const) {
    assert.equal(await pull(mirror, app, tag(name)), image.manifest.digest);
  }
  await cache.upkeep.recovered();
  await mirror.close();
  // Failed publications leave nothing for the next start to settle.
  assert.deepEqual(await cache.index.listIntents(), []);
  await cache.close();
  return false;
}

/** Bodies close their files asynchronously. */
async function assertClosed(faults: FaultyFileSystem): Promise<void> {
  for (let left = 100; faults.openFiles > 0 && left > 0; left -= 1) {
    await delay(10);
  }
  assert.equal(faults.openFiles, 0, "descriptors are left");
}

async function judge(root: string): Promise<void> {
  const faults = new FaultyFileSystem();
  assert.equal(await run(root, faults), false);
  await assertClosed(faults);
  const { findings } = await scrubRoot({
    root,
    clock: systemClock,
    isRepair: false,
  });
  assert.deepEqual(findings, []);
}

async function tryFault(
  template: string,
  fault: {
    readonly call: (typeof CALLS)[number];
    readonly code: string;
    readonly nth: number;
    readonly isLasting: boolean;
  },
): Promise<Ended> {
  const { call, code, nth, isLasting } = fault;
  const root = memoryRoot(template);
  const faults = new FaultyFileSystem();
  if (isLasting) faults.failFrom(call, code, nth);
  else faults.fail(call, code, nth);
  const isRefused = await run(root, faults);
  await assertClosed(faults);
  await judge(root);
  dropRoot(root);
  return { isHit: faults.countOf(call) >= nth, isRefused };
}

void describe("a file system call that fails", () => {
  for (const code of CODES) {
    void it(`breaks no pull and leaves a consistent root: ${code}`, async (test) => {
      const seed = chooseSeed();
      const random = seededRandom(seed);
      const template = memoryRoot();
      const first = await openLocalStorage({
        root: template,
        clock: systemClock,
        log: quietLog,
      });
      await storeImage(first, app, kept, tag("kept"));
      await first.upkeep.recovered();
      await first.close();
      let points = 0;
      let refused = 0;
      for (const call of CALLS) {
        if (ONLY_LOOKS.has(call) && code !== "EIO") continue;
        for (const isLasting of [false, true]) {
          for (let nth = 1; nth <= MAX_CALLS; nth += 1) {
            if (random() >= PART) continue;
            const point = { call, code, nth, isLasting };
            const ended = await tryFault(template, point).catch(
              (error: unknown) => {
                throw new Error(`seed ${seed}: ${JSON.stringify(point)}`, {
                  cause: error,
                });
              },
            );
            if (!ended.isHit) break;
            points += 1;
            if (ended.isRefused) refused += 1;
          }
        }
      }
      dropRoot(template);
      test.diagnostic(
        `${code}: ${points} points, ${refused} of them at the start, 0 failures, seed ${seed}`,
      );
    });
  }
});
