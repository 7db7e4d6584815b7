import assert from "node:assert/strict";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
  closeSync,
} from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import Database from "better-sqlite3";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import type { FileSystem } from "../../src/storage/local/root/file-system.ts";
import {
  openLocalStorage,
  type LocalStorage,
} from "../../src/storage/local/open-local-storage.ts";
import { keyOf, tag } from "../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "../support/after-test.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { OCI_INDEX } from "../../src/oci/media-type.ts";
import { FaultyFileSystem } from "../support/faulty-file-system.ts";
import {
  buildImage,
  buildMultiArch,
  descriptorJson,
  manifestOf,
  type TestManifest,
} from "../support/image-builder.ts";
import {
  storeBlob,
  storeImage,
  storeIndex,
  storeManifest,
} from "../support/stored-images.ts";
import { tempDir } from "../support/temp-dir.ts";

const app = keyOf("docker.io", "library/app");
const tools = keyOf("quay.io", "team/tools");
const latest = tag("latest");
const image = buildImage({ seed: "app", layers: [5_000, 70_000] });
const multi = buildMultiArch({ seed: "tools" });

interface Opened {
  readonly cache: LocalStorage;
  readonly messages: string[];
}

async function open(
  test: AfterTest,
  root: string,
  fileSystem?: FileSystem,
): Promise<Opened> {
  const messages: string[] = [];
  const write = (_fields: unknown, message?: string): void => {
    messages.push(message ?? "");
  };
  const cache = await openLocalStorage({
    root,
    clock: new FakeClock(),
    log: { info: write, warn: write, error: write },
    ...(fileSystem === undefined ? {} : { fileSystem }),
  });
  releaseAfter(test, () => cache.close());
  return { cache, messages };
}

/** Returns an index of manifests, which may be indexes themselves. */
function indexOver(
  manifests: readonly TestManifest[],
  name: string,
): TestManifest {
  const mediaType = OCI_INDEX;
  const content = {
    schemaVersion: 2,
    mediaType,
    manifests: manifests.map(descriptorJson),
    annotations: { name },
  };
  return manifestOf(content, mediaType);
}

/** Creates a root with two images, and stops cleanly. */
async function writeRoot(test: AfterTest): Promise<string> {
  const root = await tempDir(test);
  const { cache } = await open(test, root);
  await storeImage(cache, app, image, latest);
  await storeIndex(cache, tools, multi, tag("v1"));
  await cache.close();
  return root;
}

async function assertWhole(cache: LocalStorage): Promise<void> {
  const { index } = cache;
  const appTag = await index.getTag(app, latest);
  assert.equal(appTag?.digest, image.manifest.digest);
  assert.equal(appTag.mediaType, image.manifest.mediaType);
  assert.equal(
    await index.isComplete(app, image.manifest.digest, "repository"),
    true,
  );
  const toolsTag = await index.getTag(tools, tag("v1"));
  assert.equal(toolsTag?.digest, multi.manifest.digest);
  for (const one of multi.images) {
    assert.equal(
      await index.isComplete(tools, one.manifest.digest, "repository"),
      true,
    );
  }
  const report = await cache.upkeep.scrub({ isRepair: false });
  assert.deepEqual(report.findings, []);
  assert.equal(report.blobs, (await index.totals()).blobs);
}

void describe("an unusable index", () => {
  void it("is rebuilt with tags, graphs and links if it is missing", async (test) => {
    const root = await writeRoot(test);
    rmSync(diskLayout(root).indexFile);
    const { cache, messages } = await open(test, root);
    await cache.upkeep.recovered();
    await assertWhole(cache);
    assert.deepEqual(messages, [
      "opened the storage root",
      "index and blobs were compared",
    ]);
  });

  void it("is rebuilt in one walk if indexes name each other repeatedly", async (test) => {
    const root = await tempDir(test);
    const { cache } = await open(test, root);
    const perLevel = 8;
    let below: TestManifest[] = [image.manifest];
    await storeImage(cache, app, image, tag("leaf"));
    for (let level = 0; level < 4; level += 1) {
      const named = below;
      below = Array.from({ length: level === 3 ? 1 : perLevel }, (_, n) =>
        indexOver(named, `${level} ${n}`),
      );
      for (const one of below) await storeManifest(cache, app, one);
    }
    const [top] = below;
    assert.ok(top);
    await cache.index.putTag(app, latest, top.digest, 1);
    await cache.close();
    rmSync(diskLayout(root).indexFile);
    const files = new FaultyFileSystem();
    const rebuilt = await open(test, root, files.fileSystem);
    await rebuilt.cache.upkeep.recovered();
    const { index } = rebuilt.cache;
    assert.equal((await index.getTag(app, latest))?.digest, top.digest);
    assert.ok(await index.isComplete(app, top.digest, "repository"));
    const manifests = 3 * perLevel + 2;
    assert.equal((await index.totals()).manifests, manifests);
    // Two graphs are walked; then every file is examined once more for untagged content.
    assert.ok(
      files.countOf("read") < 6 * manifests,
      `${files.countOf("read")}`,
    );
  });

  void it("is moved aside and rebuilt if it is not a database", async (test) => {
    const root = await writeRoot(test);
    writeFileSync(diskLayout(root).indexFile, Buffer.alloc(10_000, 1));
    const { cache, messages } = await open(test, root);
    await cache.upkeep.recovered();
    await assertWhole(cache);
    assert.equal(
      messages[0],
      "the index was damaged; created a new one at start",
    );
  });

  void it("is replaced while running if a check after a crash finds damage", async (test) => {
    const root = await writeRoot(test);
    damageTags(diskLayout(root).indexFile);
    rmSync(diskLayout(root).cleanFile);
    const { cache, messages } = await open(test, root);
    await cache.upkeep.recovered();
    await assertWhole(cache);
    assert(
      messages.includes("the index was damaged; replaced it while running"),
    );
  });

  void it("is replaced while running if a request finds the damage", async (test) => {
    const root = await writeRoot(test);
    damageTags(diskLayout(root).indexFile);
    const { cache } = await open(test, root);
    await cache.upkeep.recovered();
    await assert.rejects(cache.index.getTag(app, latest), {
      name: "IndexError",
    });
    while (
      (await cache.index.getTag(app, latest).catch(() => undefined)) ===
      undefined
    ) {
      await cache.upkeep.recovered();
      await new Promise((resolve) => setImmediate(resolve));
    }
    await cache.upkeep.recovered();
    await assertWhole(cache);
  });

  void it("is replaced by one in memory until the next start if the damaged file can't be moved", async (test) => {
    const root = await writeRoot(test);
    const { indexFile, cleanFile } = diskLayout(root);
    damageTags(indexFile);
    rmSync(cleanFile);
    // The target of the move.
    const target = `${indexFile}.corrupt-20260101T000000Z`;
    mkdirSync(join(target, "in the way"), { recursive: true });
    const { cache, messages } = await open(test, root);
    await cache.upkeep.recovered();
    await assertWhole(cache);
    assert(
      messages.includes(
        "could not create a file in place of the damaged index",
      ),
    );
    await cache.close();
    rmSync(target, { recursive: true });
    const next = await open(test, root);
    await next.cache.upkeep.recovered();
    await assertWhole(next.cache);
    assert(existsSync(target));
  });

  void it("receives later changes if an older copy was restored", async (test) => {
    const root = await tempDir(test);
    const { indexFile } = diskLayout(root);
    const first = await open(test, root);
    await storeImage(first.cache, app, buildImage({ seed: "old" }), latest);
    await first.cache.close();
    copyFileSync(indexFile, `${indexFile}.copy`);
    const second = await open(test, root);
    await storeImage(second.cache, app, image, latest, Date.UTC(2026, 0, 1));
    await storeIndex(second.cache, tools, multi, tag("v1"));
    await second.cache.blobs.remove(
      buildImage({ seed: "old" }).manifest.digest,
    );
    await second.cache.close();
    copyFileSync(`${indexFile}.copy`, indexFile);
    const third = await open(test, root);
    await third.cache.upkeep.recovered();
    await assertWhole(third.cache);
  });

  void it("is rebuilt with its pins, including those of lost manifests", async (test) => {
    const root = await tempDir(test);
    const { indexFile, rootsFile } = diskLayout(root);
    const first = await open(test, root);
    const { index } = first.cache;
    const lost = buildImage({ seed: "lost" });
    const taken = buildImage({ seed: "taken" });
    const untagged = buildImage({ seed: "untagged" });
    const byDigest = {
      kind: "digest",
      digest: untagged.manifest.digest,
    } as const;
    await storeImage(first.cache, app, image, latest);
    await storeIndex(first.cache, tools, multi, tag("v1"));
    await storeImage(first.cache, app, lost, tag("lost"));
    await storeImage(first.cache, app, taken, tag("taken"));
    await storeManifest(first.cache, app, untagged.manifest);
    for (const name of ["latest", "lost", "taken"]) {
      await index.setPinned(app, { kind: "tag", tag: tag(name) }, true);
    }
    assert.equal(await index.setPinned(app, byDigest, true), true);
    const unpinned = { kind: "tag", tag: tag("taken") } as const;
    await index.setPinned(app, unpinned, false);
    await first.cache.blobs.remove(lost.manifest.digest);
    await first.cache.close();

    const assertPins = async ({ cache }: Opened): Promise<void> => {
      await cache.upkeep.recovered();
      const isPinned = async (
        key: typeof app,
        reference: Parameters<typeof index.getRoot>[1],
      ) => (await cache.index.getRoot(key, reference))?.isPinned;
      assert.equal(await isPinned(app, { kind: "tag", tag: latest }), true);
      assert.equal(await isPinned(app, byDigest), true);
      assert.equal(await isPinned(app, unpinned), false);
      assert.equal(
        await isPinned(tools, { kind: "tag", tag: tag("v1") }),
        false,
      );
      assert.deepEqual(await cache.index.listLostPins(9), [
        { key: app, reference: { kind: "tag", tag: tag("lost") } },
      ]);
    };
    // The second time from the compacted journal, the third from the existing index.
    for (const isLost of [true, true, false]) {
      if (isLost) rmSync(indexFile);
      const again = await open(test, root);
      await assertPins(again);
      await again.cache.close();
    }
    const lines = readFileSync(rootsFile, "utf8")
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith('{"complete"'))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.deepEqual(
      new Map(lines.map(({ ref, pinned }) => [ref, pinned])),
      new Map([
        ["docker.io/library/app:lost", true],
        [`docker.io/library/app@${untagged.manifest.digest}`, true],
        ["docker.io/library/app:latest", true],
        ["docker.io/library/app:taken", undefined],
        ["quay.io/team/tools:v1", undefined],
      ]),
    );
  });

  void it("is rebuilt from a journal of a version without pins", async (test) => {
    const root = await writeRoot(test);
    const { indexFile, rootsFile } = diskLayout(root);
    const old = [
      ["docker.io/library/app:latest", image.manifest],
      ["quay.io/team/tools:v1", multi.manifest],
    ] as const;
    writeFileSync(
      rootsFile,
      old
        .map(
          ([ref, { digest, mediaType }]) =>
            `${JSON.stringify({ ref, digest, mediaType, time: "2025-10-07T12:30:05.000Z" })}\n`,
        )
        .join(""),
    );
    rmSync(indexFile);
    const { cache } = await open(test, root);
    await cache.upkeep.recovered();
    await assertWhole(cache);
    assert.deepEqual(await cache.index.listLostPins(9), []);
  });

  void it("of a newer version is rejected and left unchanged", async (test) => {
    const root = await writeRoot(test);
    const { indexFile } = diskLayout(root);
    const newer = new Database(indexFile);
    newer.pragma("user_version = 99");
    newer.close();
    const before = readFileSync(indexFile);
    await assert.rejects(
      open(test, root),
      /got index schema 99; expected at most \d+:/,
    );
    assert.deepEqual(readFileSync(indexFile), before);
  });
});

void describe("a process that was killed", () => {
  void it("has the rows of its published blobs after the next start, without the upstream", async (test) => {
    const root = await tempDir(test);
    const { cache } = await open(test, root);
    const [layer] = image.layers;
    assert(layer !== undefined);
    const { manifest } = image;
    await cache.index.beginFill(app, {
      digest: layer.digest,
      sizeBytes: layer.sizeBytes,
    });
    await cache.blobs.put(layer.digest, layer.bytes());
    await cache.index.beginFill(app, {
      digest: manifest.digest,
      sizeBytes: manifest.sizeBytes,
      mediaType: manifest.mediaType,
    });
    await cache.blobs.put(manifest.digest, manifest.bytes);
    await cache.index.beginFill(app, {
      digest: image.config.digest,
      sizeBytes: image.config.sizeBytes,
    });
    await cache.close();
    const again = await open(test, root);
    const { index } = again.cache;
    assert.equal(
      (await index.getLinkedBlob(app, layer.digest))?.sizeBytes,
      5_000,
    );
    assert.equal(
      (await index.getLinkedBlob(app, manifest.digest))?.mediaType,
      manifest.mediaType,
    );
    assert.equal(
      (await index.findDescriptor(app, image.config.digest))?.sizeBytes,
      image.config.sizeBytes,
    );
    assert.deepEqual(await index.listIntents(), []);
    assert.equal((await index.totals()).blobs, 2);
  });

  void it("adopts blobs without a row and drops rows without a blob", async (test) => {
    const root = await writeRoot(test);
    const { cache } = await open(test, root);
    const stray = buildImage({ seed: "stray" });
    await cache.blobs.put(stray.manifest.digest, stray.manifest.bytes);
    for (const blob of stray.blobs) {
      await cache.blobs.put(blob.digest, blob.bytes());
    }
    const lost = buildImage({ seed: "lost" });
    await storeManifest(cache, app, lost.manifest);
    await storeBlob(cache, app, lost.config);
    await cache.blobs.remove(lost.config.digest);
    await cache.close();
    rmSync(diskLayout(root).cleanFile);
    const again = await open(test, root);
    await again.cache.upkeep.recovered();
    await assertWhole(again.cache);
    const { index } = again.cache;
    assert.equal(
      (await index.getBlob(stray.manifest.digest))?.mediaType,
      stray.manifest.mediaType,
    );
    assert.equal(
      await index.getLinkedBlob(app, stray.manifest.digest),
      undefined,
    );
    assert.equal(await index.getBlob(lost.config.digest), undefined);
    assert.notEqual(await index.getBlob(lost.manifest.digest), undefined);
  });
});

/** Damages the first page of the tags, which opening does not read. */
function damageTags(path: string): void {
  const database = new Database(path);
  const pageBytes = database.pragma("page_size", { simple: true }) as number;
  const page = database
    .prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'tags'")
    .pluck()
    .get() as number;
  database.close();
  const fd = openSync(path, "r+");
  writeSync(
    fd,
    Buffer.alloc(pageBytes, 0xa5),
    0,
    pageBytes,
    (page - 1) * pageBytes,
  );
  closeSync(fd);
}
