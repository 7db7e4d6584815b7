import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import { Evictor } from "../../src/retention/evictor.ts";
import { migrate } from "../../src/storage/local/index/migrations.ts";
import {
  openLocalStorage,
  type LocalStorage,
} from "../../src/storage/local/open-local-storage.ts";
import { scrubRoot } from "../../src/storage/local/upkeep/scrub-root.ts";
import { trackBlobStore } from "../../src/storage/tracked-blob-store.ts";
import {
  parseRepositoryName,
  parseTag,
  type RepositoryKey,
  type Tag,
} from "../../src/oci/reference.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { buildImage, type TestImage } from "./image-builder.ts";
import { mirrorOver, pull, quietLog } from "./pulling-mirror.ts";
import { ScriptedRegistry } from "./scripted-client.ts";
import { storeImage } from "./stored-images.ts";

const repository = parseRepositoryName("library/app");
const latest = parseTag("latest");
const kept = parseTag("kept");
assert(repository !== undefined && latest !== undefined && kept !== undefined);
const key: RepositoryKey = { upstream: "docker.io", repository };

const keptImage = buildImage({ seed: "kept", layers: [9_000, 200_000] });
const newImage = buildImage({
  seed: "new",
  // One layer shared with the kept image, one below the hash worker's threshold, one above it.
  layers: [...keptImage.layers.slice(1), 300_000, 1_200_000],
});
const movedImage = buildImage({ seed: "moved", layers: [50_000] });

/** Work that changes a storage root and may be killed at any system call. */
export interface KillScenario {
  readonly name: string;
  /** Creates the root as it is before the work. */
  readonly prepare: (root: string) => Promise<void>;
  /** Does the work, from opening the root to closing it. */
  readonly run: (root: string) => Promise<void>;
  /** Images that exist before the work and must be complete after any kill. */
  readonly before: readonly Expected[];
  /** Images that are complete or absent after a kill, and absent after another complete run. */
  readonly going?: readonly Expected[];
  /** Images that are complete after another complete run. */
  readonly after: readonly Expected[];
}

interface Expected {
  readonly tag: Tag;
  readonly image: TestImage;
  readonly isPinned: boolean;
}

export function open(root: string): Promise<LocalStorage> {
  return openLocalStorage({ root, clock: systemClock, log: quietLog });
}

async function withCache(
  root: string,
  work: (cache: LocalStorage) => Promise<void>,
): Promise<void> {
  const cache = await open(root);
  try {
    await work(cache);
    await cache.upkeep.recovered();
  } finally {
    await cache.close();
  }
}

const prepareKept = (root: string): Promise<void> =>
  withCache(root, async (cache) => {
    await storeImage(cache, key, keptImage, kept);
    await cache.index.setPinned(key, { kind: "tag", tag: kept }, true);
  });

/** Evicts everything that is not pinned. */
const evictAll = (root: string): Promise<void> =>
  withCache(root, async (cache) => {
    const evictor = new Evictor({
      index: cache.index,
      blobs: trackBlobStore(cache.blobs),
      limits: {
        maxSize: { share: 1 },
        minFree: { bytes: 0 },
        maxIdleMs: Infinity,
        isKept: () => false,
      },
      readSpace: async () => undefined,
      clock: systemClock,
      log: quietLog,
    });
    // As at each start: first finish evictions that an earlier process began.
    evictor.start();
    await evictor.evict({ toBytes: 0, isDryRun: false });
    await evictor.stop();
  });

/** Pulls the tag `latest` from a registry in which it points to the image. */
const pullInto = (root: string, image: TestImage): Promise<void> =>
  withCache(root, async (cache) => {
    const registry = new ScriptedRegistry();
    registry.push(key, image, latest);
    const mirror = mirrorOver(cache, registry, { clock: systemClock });
    assert.equal(await pull(mirror, key, latest), image.manifest.digest);
    await mirror.close();
  });

const isKept = { tag: kept, image: keptImage, isPinned: true };
const isNew = { tag: latest, image: newImage, isPinned: false };

export const KILL_SCENARIOS: readonly KillScenario[] = [
  {
    name: "fill",
    prepare: prepareKept,
    run: (root) => pullInto(root, newImage),
    before: [isKept],
    after: [isKept, isNew],
  },
  {
    name: "tag update",
    prepare: async (root) => {
      await prepareKept(root);
      await pullInto(root, newImage);
    },
    run: (root) => pullInto(root, movedImage),
    before: [isKept],
    after: [isKept, { ...isNew, image: movedImage }],
  },
  {
    name: "eviction",
    prepare: async (root) => {
      await prepareKept(root);
      await pullInto(root, newImage);
    },
    run: evictAll,
    before: [isKept],
    going: [isNew],
    after: [isKept],
  },
  {
    name: "migration",
    prepare: async (root) => {
      await prepareKept(root);
      const { indexFile } = diskLayout(root);
      const now = new Database(indexFile, { readonly: true });
      const rows = TABLES_OF_SCHEMA_1.map((table) => ({
        table,
        columns: COLUMNS_OF_SCHEMA_1[table],
        rows: now
          .prepare(
            `SELECT ${COLUMNS_OF_SCHEMA_1[table]} FROM ${table} ${table === "repositories" ? "WHERE name <> ''" : ""}`,
          )
          .raw()
          .all() as unknown[][],
      }));
      now.close();
      for (const suffix of ["", "-wal", "-shm"]) {
        rmSync(indexFile + suffix, { force: true });
      }
      const old = new Database(indexFile);
      old.pragma("journal_mode = WAL");
      migrate(old, 1);
      for (const { table, columns, rows: values } of rows) {
        const insert = old.prepare(
          `INSERT INTO ${table} (${columns}) VALUES (${columns.replaceAll(/[a-z_]+/g, "?")})`,
        );
        for (const value of values) insert.run(...value);
      }
      old.close();
    },
    run: (root) => withCache(root, () => Promise.resolve()),
    // Schema 1 has no pins; they are restored from the journal.
    before: [isKept],
    after: [isKept],
  },
  {
    name: "repair",
    prepare: async (root) => {
      await prepareKept(root);
      await pullInto(root, newImage);
      const layout = diskLayout(root);
      const [, corrupt, missing] = newImage.layers;
      assert(corrupt !== undefined && missing !== undefined);
      writeFileSync(layout.blobFile(corrupt.digest), "corrupt");
      rmSync(layout.blobFile(missing.digest));
      writeFileSync(
        layout.blobFile(movedImage.manifest.digest),
        movedImage.manifest.bytes,
        { mode: 0o600 },
      );
      writeFileSync(join(layout.partialFolder, "stray"), "stray");
    },
    run: async (root) => {
      await scrubRoot({ root, clock: systemClock, isRepair: true });
    },
    before: [isKept],
    after: [isKept],
  },
  {
    name: "rebuild",
    prepare: async (root) => {
      await prepareKept(root);
      rmSync(diskLayout(root).indexFile);
    },
    run: (root) => withCache(root, () => Promise.resolve()),
    before: [isKept],
    after: [isKept],
  },
];

const COLUMNS_OF_SCHEMA_1 = {
  digests: "id, digest",
  media_types: "id, name",
  repositories: "id, upstream, name",
  blobs: "id, size_bytes, stored_at_ms, used_at_ms",
  manifests: "id, media_type_id, subject_id",
  links: "blob_id, repository_id",
  edges:
    "parent_id, child_id, is_manifest, is_foreign, size_bytes, media_type_id",
  tags: "repository_id, name, manifest_id, fetched_at_ms, verified_at_ms, used_at_ms",
} as const;
const TABLES_OF_SCHEMA_1 = Object.keys(
  COLUMNS_OF_SCHEMA_1,
) as (keyof typeof COLUMNS_OF_SCHEMA_1)[];

/**
 * Asserts the state of the root after a kill, runs the scenario again to its end, and asserts the
 * state after that. Leaves the root closed.
 *
 * @throws AssertionError
 */
export async function judgeAfterKill(
  root: string,
  scenario: KillScenario,
): Promise<void> {
  const cache = await open(root);
  try {
    await cache.upkeep.recovered();
    if (scenario.name === "repair") {
      // The killed repair did not finish; another one repairs the rest.
      await cache.upkeep.scrub({ isRepair: true });
    }
    const { findings } = await cache.upkeep.scrub({ isRepair: false });
    assert.deepEqual(findings, [], "a second scrub finds nothing");
    await assertWhole(cache, scenario.before);
    for (const image of scenario.going ?? []) {
      const row = await cache.index.getTag(key, image.tag);
      if (row !== undefined) await assertWhole(cache, [image]);
    }
  } finally {
    await cache.close();
  }
  await scenario.run(root);
  const { findings } = await scrubRoot({
    root,
    clock: systemClock,
    isRepair: false,
  });
  assert.deepEqual(findings, [], "after another run nothing is found");
  const again = await open(root);
  try {
    await assertWhole(again, scenario.after);
    for (const { tag, image } of scenario.going ?? []) {
      assert.equal(await again.index.getTag(key, tag), undefined);
      assert.equal(await again.index.getBlob(image.manifest.digest), undefined);
    }
    assert.deepEqual(await again.index.listIntents(), []);
  } finally {
    await again.close();
  }
}

/** Asserts that the images can be pulled while every upstream is down. */
async function assertWhole(
  cache: LocalStorage,
  images: readonly Expected[],
): Promise<void> {
  const registry = new ScriptedRegistry();
  registry.isDown = true;
  const mirror = mirrorOver(cache, registry, {
    clock: systemClock,
    isOffline: true,
  });
  for (const { tag, image, isPinned } of images) {
    assert.equal(await pull(mirror, key, tag), image.manifest.digest);
    const root = await cache.index.getRoot(key, { kind: "tag", tag });
    assert.equal(root?.isPinned, isPinned);
  }
  await mirror.close();
}
