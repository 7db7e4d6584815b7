import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { describe, it } from "node:test";
import Database from "better-sqlite3";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import { openLocalStorage } from "../../src/storage/local/open-local-storage.ts";
import { scrubRoot } from "../../src/storage/local/upkeep/scrub-root.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { keyOf, tag } from "../contract/metadata-index-contract.ts";
import { CrashFileSystem } from "../support/crash-file-system.ts";
import { buildImage } from "../support/image-builder.ts";
import { dropRoot, memoryRoot } from "../support/memory-root.ts";
import { mirrorOver, pull, quietLog } from "../support/pulling-mirror.ts";
import { ScriptedRegistry } from "../support/scripted-client.ts";
import { chooseSeed, seededRandom } from "../support/seeded-choice.ts";
import { soakFactor } from "../support/soak.ts";

const app = keyOf("docker.io", "library/app");
const latest = tag("latest");
const images = [
  buildImage({ seed: "power/1", layers: [30_000, 1_100_000] }),
  buildImage({ seed: "power/2", layers: [70_000] }),
  buildImage({ seed: "power/3", layers: [10, 5_000] }),
];
const STATES = Math.round(600 * soakFactor(0.1));

void describe("a power failure", () => {
  void it("causes no wrong answer, at any moment of three pulls", async (test) => {
    const seed = chooseSeed();
    const random = seededRandom(seed);
    const root = memoryRoot();
    const crash = new CrashFileSystem(root);
    const cache = await openLocalStorage({
      root,
      clock: systemClock,
      log: quietLog,
      fileSystem: crash.fileSystem,
      bootId: "before",
    });
    await cache.upkeep.recovered();
    /** An earlier state of the index, and its time: WAL mode may lose the last commits. */
    const indexes: { at: number; bytes: Buffer }[] = [];
    const keepIndex = (): void => {
      indexes.push({ at: crash.moments, bytes: reader.serialize() });
    };
    const reader = new Database(diskLayout(root).indexFile, { readonly: true });
    keepIndex();
    const registry = new ScriptedRegistry();
    const mirror = mirrorOver(
      {
        blobs: cache.blobs,
        index: new Proxy(cache.index, {
          get: (index, name) => {
            const member: unknown = Reflect.get(index, name);
            if (typeof member !== "function") return member;
            return async (...input: readonly unknown[]) => {
              const result: unknown = await Reflect.apply(member, index, input);
              if (WRITES.has(String(name))) keepIndex();
              return result;
            };
          },
        }),
      },
      registry,
      { clock: systemClock },
    );
    for (const image of images) {
      registry.push(app, image, latest);
      await pull(mirror, app, latest);
    }
    await mirror.close();
    reader.close();
    const moments = crash.moments;
    await cache.close();
    for (let state = 0; state < STATES; state += 1) {
      const moment = Math.floor(random() * (moments + 1));
      const known = indexes.filter(({ at }) => at <= moment);
      const index = known[Math.floor(random() * known.length)];
      const after = memoryRoot();
      crash.layOut(after, moment, random);
      if (index !== undefined) {
        writeFileSync(diskLayout(after).indexFile, index.bytes, {
          mode: 0o600,
        });
      }
      await judge(after).catch((error: unknown) => {
        throw new Error(`seed ${seed}, moment ${moment}, root ${after}`, {
          cause: error,
        });
      });
      dropRoot(after);
    }
    dropRoot(root);
    test.diagnostic(
      `power loss: ${STATES} states of ${moments} moments and ${indexes.length} indexes, 0 failures, seed ${seed}`,
    );
  });
});

const WRITES = new Set([
  "recordBlob",
  "putTag",
  "link",
  "beginFill",
  "forgetBlob",
]);

/** Checks that it starts, that a scrub finds nothing, and that the last image is pulled correctly. */
async function judge(root: string): Promise<void> {
  const cache = await openLocalStorage({
    root,
    clock: systemClock,
    log: quietLog,
    bootId: "after",
  });
  await cache.upkeep.recovered();
  assert.deepEqual(
    (await cache.upkeep.scrub({ isRepair: false })).findings,
    [],
  );
  const registry = new ScriptedRegistry();
  for (const image of images) registry.push(app, image, latest);
  const mirror = mirrorOver(cache, registry, { clock: systemClock });
  assert.equal(await pull(mirror, app, latest), images.at(-1)?.manifest.digest);
  await mirror.close();
  await cache.close();
  const { findings } = await scrubRoot({
    root,
    clock: systemClock,
    isRepair: false,
  });
  assert.deepEqual(findings, []);
}
