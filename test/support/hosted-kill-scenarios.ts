import assert from "node:assert/strict";
import {
  appendFileSync,
  existsSync,
  readFileSync,
  readdirSync,
  rmSync,
} from "node:fs";
import type { Digest } from "../../src/oci/digest.ts";
import type { RepositoryKey } from "../../src/oci/reference.ts";
import { CondemnedBlobs } from "../../src/retention/condemned-blobs.ts";
import type { LocalStorage } from "../../src/storage/local/open-local-storage.ts";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import { scrubRoot } from "../../src/storage/local/upkeep/scrub-root.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { keyOf, tag } from "../contract/metadata-index-contract.ts";
import { putManifest, pushImage, uploadBlob } from "./hosted-pushes.ts";
import { UNLIMITED } from "./hosted-store.ts";
import { buildImage, buildIndex, type TestImage } from "./image-builder.ts";
import { open } from "./kill-scenarios.ts";
import { quietLog } from "./pulling-mirror.ts";

const app = keyOf("local", "team/app");
const web = keyOf("second", "web");
const kept = buildImage({ seed: "kept", layers: [9_000, 70_000] });
/** Shares a layer with the image that stays; one layer has the size that a thread hashes. */
const pushed = buildImage({
  seed: "pushed",
  layers: [...kept.layers.slice(1), 5_000, 1_200_000],
});
const list = buildIndex([kept, pushed]);
const { isImmutable } = UNLIMITED;

/** A write to hosted repositories. It is acknowledged once its promise resolves. */
interface HostedWrite {
  readonly name: string;
  readonly run: (storage: LocalStorage) => Promise<unknown>;
  /** Names that have this digest after the write; undefined: none. */
  readonly sets: readonly (readonly [
    RepositoryKey,
    string | Digest,
    Digest | undefined,
  ])[];
}

/** Work on hosted repositories that may be killed at any system call. */
export interface HostedKillScenario {
  readonly name: string;
  /** Writes before the process that is killed. */
  readonly before: readonly HostedWrite[];
  readonly writes: readonly HostedWrite[];
}

function push(
  key: RepositoryKey,
  image: TestImage,
  ...tags: readonly string[]
): HostedWrite {
  const { digest } = image.manifest;
  return {
    name: `push of ${digest} to ${key.repository}:${tags.join()}`,
    run: (storage) => pushImage(storage, key, image, tags),
    sets: [digest, ...tags].map((name) => [key, name, digest] as const),
  };
}

const upload: HostedWrite = {
  name: "upload of blobs",
  run: async (storage) => {
    for (const blob of pushed.blobs) await uploadBlob(storage, web, blob);
  },
  sets: [],
};
const putList: HostedWrite = {
  name: "put of an index",
  run: async (storage) => {
    const { kind } = await putManifest(storage, app, list.manifest, ["list"]);
    // A repeated run finds that a manifest below it was deleted.
    assert.equal(kind, "stored");
  },
  sets: [
    [app, "list", list.manifest.digest],
    [app, list.manifest.digest, list.manifest.digest],
  ],
};
const deleteTag: HostedWrite = {
  name: "deletion of a tag",
  run: ({ index }) => index.deleteHostedTag(app, tag("v2"), isImmutable),
  sets: [[app, "v2", undefined]],
};
const deleteManifest: HostedWrite = {
  name: "deletion of a manifest",
  run: ({ index }) =>
    index.deleteHostedManifest(app, pushed.manifest.digest, isImmutable),
  sets: [
    [app, "v1", undefined],
    [app, pushed.manifest.digest, undefined],
  ],
};
const collection: HostedWrite = { name: "collection", run: collect, sets: [] };

const before = [push(app, kept, "kept"), push(web, kept, "kept")];

export const HOSTED_KILL_SCENARIOS: readonly HostedKillScenario[] = [
  { name: "hosted upload", before, writes: [upload] },
  {
    name: "hosted manifest",
    before: [...before, push(app, pushed, "moves")],
    writes: [push(app, kept, "moves", "also"), putList],
  },
  {
    name: "hosted deletion",
    before: [...before, push(app, pushed, "v1", "v2"), push(web, pushed)],
    writes: [deleteTag, deleteManifest],
  },
  {
    name: "hosted collection",
    before: [...before, push(app, pushed, "v1"), deleteManifest],
    writes: [collection],
  },
];

/** Removes what nothing needs, as the collection does after the grace. */
async function collect({ index, blobs }: LocalStorage): Promise<void> {
  while (!(await index.dropUnneededLinks(Date.now() + 1, 100)).isEnd);
  await new CondemnedBlobs({ index, blobs, log: quietLog }).purge(() => false);
}

/** The file in which a run notes each acknowledged write. */
function acknowledgements(root: string): string {
  return `${root}.acknowledged`;
}

async function withStorage(
  root: string,
  work: (storage: LocalStorage) => Promise<void>,
): Promise<void> {
  const storage = await open(root);
  try {
    await work(storage);
    await storage.upkeep.recovered();
  } finally {
    await storage.close();
  }
}

export function prepareHosted(
  root: string,
  scenario: HostedKillScenario,
): Promise<void> {
  return withStorage(root, async (storage) => {
    for (const write of scenario.before) await write.run(storage);
  });
}

/** Runs the writes, and notes each of them after it was acknowledged. */
export function runHosted(
  root: string,
  scenario: HostedKillScenario,
): Promise<void> {
  return withStorage(root, async (storage) => {
    for (const { name, run } of scenario.writes) {
      await run(storage);
      appendFileSync(acknowledgements(root), `${name}\n`);
    }
  });
}

/**
 * Asserts the state of the root after a kill, runs the scenario again to its end, and asserts the
 * state after that. Leaves the root closed.
 *
 * @throws AssertionError
 */
export async function judgeHosted(
  root: string,
  scenario: HostedKillScenario,
): Promise<void> {
  const path = acknowledgements(root);
  const acknowledged = existsSync(path)
    ? readFileSync(path, "utf8").split("\n")
    : [];
  rmSync(path, { force: true });
  const storage = await open(root);
  try {
    // Not after the recovery: requests must not be answered too early.
    await assertNames(storage, scenario, acknowledged);
    await storage.upkeep.recovered();
    await assertNames(storage, scenario, acknowledged);
    await assertSound(root, storage);
  } finally {
    await storage.close();
  }
  await runHosted(root, scenario);
  rmSync(path, { force: true });
  const again = await open(root);
  try {
    await assertNames(
      again,
      scenario,
      scenario.writes.map(({ name }) => name),
    );
    await assertSound(root, again);
    assert.deepEqual(await again.index.listIntents(), []);
  } finally {
    await again.close();
  }
  const { findings } = await scrubRoot({
    root,
    clock: systemClock,
    isRepair: false,
  });
  assert.deepEqual(findings, []);
}

/** Asserts that each name has what the last acknowledged write gave it, or what a later write gives. */
async function assertNames(
  { index }: LocalStorage,
  { before: earlier, writes }: HostedKillScenario,
  acknowledged: readonly string[],
): Promise<void> {
  const allowed = new Map<string, (Digest | undefined)[]>();
  const keys = new Map<string, readonly [RepositoryKey, string | Digest]>();
  for (const write of [...earlier, ...writes]) {
    const isSure = earlier.includes(write) || acknowledged.includes(write.name);
    for (const [key, name, digest] of write.sets) {
      const id = `${key.upstream}/${key.repository} ${name}`;
      keys.set(id, [key, name]);
      const others = isSure ? [] : (allowed.get(id) ?? [undefined]);
      allowed.set(id, [...others, digest]);
    }
  }
  for (const [id, [key, name]] of keys) {
    const found = name.startsWith("sha256:")
      ? await index.getLinkedBlob(key, name as Digest)
      : await index.getTag(key, tag(name));
    const digests = allowed.get(id) ?? [];
    assert.ok(
      digests.includes(found?.digest),
      `${id}: got ${found?.digest}; expected one of ${digests.join(", ")}`,
    );
  }
}

/** Asserts that hosted images are complete, a scrub finds nothing, and nothing without a root stays. */
async function assertSound(root: string, storage: LocalStorage): Promise<void> {
  const { index, upkeep } = storage;
  await upkeep.clearLeftovers(Infinity);
  await collect(storage);
  const { findings } = await upkeep.scrub({ isRepair: false });
  assert.deepEqual(findings, []);
  const needed = new Set<string>();
  for (const key of [app, web]) {
    for (const image of [kept, pushed]) {
      const { manifest, blobs } = image;
      if ((await index.getLinkedBlob(key, manifest.digest)) === undefined) {
        continue;
      }
      for (const { digest } of [manifest, ...blobs]) {
        const row = await index.getLinkedBlob(key, digest);
        assert.ok(row !== undefined, `${digest} is linked`);
        needed.add(digest.slice("sha256:".length));
      }
    }
    const { digest } = list.manifest;
    if ((await index.getLinkedBlob(key, digest)) !== undefined) {
      needed.add(digest.slice("sha256:".length));
    }
  }
  assert.deepEqual(
    readdirSync(diskLayout(root).blobFolder("sha256")).toSorted(),
    [...needed].toSorted(),
  );
}
