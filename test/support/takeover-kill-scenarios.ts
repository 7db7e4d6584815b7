import assert from "node:assert/strict";
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { runTakeover } from "../../src/cli/content/takeover/takeover.ts";
import type { TakeoverCounts } from "../../src/images/takeover/takeover.ts";
import { openLocalStorage } from "../../src/storage/local/open-local-storage.ts";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import { scrubRoot } from "../../src/storage/local/upkeep/scrub-root.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { keyOf, tag } from "../contract/metadata-index-contract.ts";
import { CollectedOutput } from "./collected-output.ts";
import { describeFolder, DistributionTree } from "./distribution-tree.ts";
import { buildImage, buildMultiArch } from "./image-builder.ts";
import { quietLog } from "./pulling-mirror.ts";

/** One layer has the size that a thread hashes. */
const app = buildImage({ seed: "app", layers: [1_200_000] });
const multi = buildMultiArch({ seed: "multi", layers: [3_000] });

/** A take-over that may be killed at any system call. */
export interface TakeoverKillScenario {
  readonly name: string;
  readonly registry: "docker.io" | "local";
  /** Runs it over a folder made by {@link prepareTakeover}. */
  readonly run: (dir: string) => Promise<void>;
}

export const TAKEOVER_KILL_SCENARIOS: readonly TakeoverKillScenario[] = [
  {
    name: "take-over of a proxy",
    registry: "docker.io",
    run: async (dir) => {
      await takeOver(dir, "docker.io");
    },
  },
  {
    name: "take-over of a private registry",
    registry: "local",
    run: async (dir) => {
      await takeOver(dir, "local");
    },
  },
];

/** Writes the folder of a registry, and the configuration of a mirror that never ran. */
export function prepareTakeover(dir: string): Promise<void> {
  const tree = new DistributionTree(join(dir, "registry"));
  tree.putImage("library/app", app, "1", "latest");
  tree.putIndex("library/multi", multi, "2");
  tree.putImage("library/again", app, "1");
  writeFileSync(
    join(dir, "entrepot.yaml"),
    JSON.stringify({
      operator: { listen: false },
      storage: { root: "data" },
      eviction: { minFree: 0 },
    }),
  );
  return Promise.resolve();
}

async function takeOver(
  dir: string,
  registry: TakeoverKillScenario["registry"],
): Promise<TakeoverCounts> {
  const { code, stdout, stderr } = await runTakeoverIn(dir, registry);
  assert.deepEqual([code, stderr], [0, ""]);
  return JSON.parse(stdout) as TakeoverCounts;
}

/** Runs the command over the folder `registry` with the configuration `entrepot.yaml`. */
export async function runTakeoverIn(
  dir: string,
  registry: TakeoverKillScenario["registry"],
): Promise<{
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}> {
  const stdout = new CollectedOutput();
  const stderr = new CollectedOutput();
  const code = await runTakeover({
    dir: "registry",
    upstream: registry === "local" ? undefined : registry,
    into: registry === "local" ? registry : undefined,
    registryConfig: undefined,
    isDryRun: false,
    configFile: join(dir, "entrepot.yaml"),
    json: true,
    env: {},
    cwd: dir,
    stdin: new PassThrough(),
    stdout,
    stderr,
  });
  return { code, stdout: stdout.text, stderr: stderr.text };
}

/**
 * Asserts that the folder is unchanged, and that the same command, run again, leaves every image
 * complete, every blob linked and nothing for a scrub to find.
 */
export async function judgeTakeover(
  dir: string,
  { registry }: TakeoverKillScenario,
): Promise<void> {
  const before = describeFolder(join(dir, "registry"));
  const { tags, manifests, copiedBlobs } = await takeOver(dir, registry);
  assert.deepEqual([tags, manifests, copiedBlobs], [4, 5, 0]);
  assert.deepEqual(describeFolder(join(dir, "registry")), before);
  const root = join(dir, "data");
  const layout = diskLayout(root);
  const tree = new DistributionTree(join(dir, "registry"));
  const contents = [
    ...[app, ...multi.images].flatMap(({ blobs, manifest }) => [
      ...blobs,
      manifest,
    ]),
    multi.manifest,
  ];
  const stored = readdirSync(layout.blobFolder("sha256"));
  assert.equal(stored.length, new Set(contents.map((one) => one.digest)).size);
  for (const blob of contents) {
    const { ino, nlink, mode } = statSync(layout.blobFile(blob.digest));
    assert.equal(ino, statSync(tree.blobPath(blob)).ino);
    assert.deepEqual([nlink, mode & 0o777], [2, 0o644]);
  }
  assert.deepEqual(
    readdirSync(layout.partialFolder).filter((name) => name !== "boot-id"),
    [],
  );
  const { findings } = await scrubRoot({
    root,
    clock: systemClock,
    isRepair: false,
  });
  assert.deepEqual(findings, []);
  const storage = await openLocalStorage({
    root,
    clock: systemClock,
    log: quietLog,
  });
  for (const [name, reference, image] of [
    ["library/app", "1", app],
    ["library/app", "latest", app],
    ["library/again", "1", app],
    ["library/multi", "2", multi],
  ] as const) {
    const key = keyOf(registry, name);
    const { digest } = image.manifest;
    const row = await storage.index.getTag(key, tag(reference));
    assert.equal(row?.digest, digest);
    assert(await storage.index.isComplete(key, digest, "repository"));
  }
  assert.deepEqual(await storage.index.listIntents(), []);
  await storage.close();
}
