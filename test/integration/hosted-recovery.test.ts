import assert from "node:assert/strict";
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Digest } from "../../src/oci/digest.ts";
import type { RepositoryKey } from "../../src/oci/reference.ts";
import { CondemnedBlobs } from "../../src/retention/condemned-blobs.ts";
import { IndexRestoringError } from "../../src/storage/metadata-index.ts";
import {
  type LocalStorage,
  openLocalStorage,
  type LocalStorageOptions,
} from "../../src/storage/local/open-local-storage.ts";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import {
  type FileSystem,
  nodeFileSystem,
} from "../../src/storage/local/root/file-system.ts";
import { lineOf } from "../../src/storage/local/upkeep/journal-lines.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { keyOf, tag } from "../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "../support/after-test.ts";
import {
  pushImage,
  putManifest,
  uploadBlob,
} from "../support/hosted-pushes.ts";
import { UNLIMITED } from "../support/hosted-store.ts";
import {
  buildArtifact,
  buildImage,
  buildIndex,
  manifestOf,
  type TestImage,
} from "../support/image-builder.ts";
import { quietLog } from "../support/pulling-mirror.ts";
import { storeImage } from "../support/stored-images.ts";
import { tempDir } from "../support/temp-dir.ts";

const app = keyOf("local", "team/app");
const web = keyOf("local", "web");
const other = keyOf("second", "team/app");
const mirrored = keyOf("docker.io", "library/base");

async function open(
  test: AfterTest,
  root: string,
  options: Partial<LocalStorageOptions> = {},
): Promise<LocalStorage> {
  const storage = await openLocalStorage({
    root,
    clock: systemClock,
    log: quietLog,
    ...options,
  });
  let isOpen = true;
  const close = storage.close.bind(storage);
  storage.close = () => {
    isOpen = false;
    return close();
  };
  releaseAfter(test, () => (isOpen ? close() : undefined));
  return storage;
}

/** Leaves the root as a process that was killed now. */
async function openedRoot(test: AfterTest) {
  const root = `${await tempDir(test)}/data`;
  return { root, storage: await open(test, root) };
}

const shared = buildImage({ seed: "shared", layers: [20_000, 3_000] });
const images = Array.from({ length: 12 }, (_, at) =>
  buildImage({
    seed: `hosted/${at}`,
    layers: [...shared.layers, 100 + at],
  }),
);

/** Everything that must come back, as a client sees it. */
async function contentOf(storage: LocalStorage): Promise<unknown> {
  const found: Record<string, unknown> = {};
  for (const {
    registry,
    bytes,
  } of await storage.index.listHostedRegistries()) {
    found[registry] = bytes;
    for (const repository of await storage.index.listHostedRepositories(
      registry,
      100,
      undefined,
    )) {
      const key: RepositoryKey = { upstream: registry, repository };
      const tags = await storage.index.listHostedTags(key, 1_000, undefined);
      const untagged = await storage.index.listUntaggedManifests(
        key,
        1_000,
        undefined,
      );
      found[`${registry}/${repository}`] = {
        tags: tags.map(({ tag: name, digest, pushedAtMs }) => [
          name,
          digest,
          pushedAtMs,
        ]),
        untagged: untagged.map(({ digest }) => digest),
      };
    }
  }
  return found;
}

async function assertWhole(
  storage: LocalStorage,
  key: RepositoryKey,
  image: TestImage,
): Promise<void> {
  for (const { digest, sizeBytes } of [image.manifest, ...image.blobs]) {
    const row = await storage.index.getLinkedBlob(key, digest);
    assert.equal(row?.sizeBytes, sizeBytes, `${digest} of ${key.repository}`);
    assert.ok((await storage.blobs.read(digest, sizeBytes)) !== undefined);
  }
}

async function assertClean(storage: LocalStorage): Promise<void> {
  const { findings } = await storage.upkeep.scrub({ isRepair: false });
  assert.deepEqual(findings, []);
}

/** Removes what no manifest needs, as the collection does an hour later. */
async function collect({ index, blobs }: LocalStorage): Promise<void> {
  while (!(await index.dropUnneededLinks(Date.now() + 1, 100)).isEnd);
  await new CondemnedBlobs({ index, blobs, log: quietLog }).purge(() => false);
}

/** Pushes to three repositories of two registries, and deletes. */
async function pushAll(storage: LocalStorage) {
  const [moved, replacement, deleted, untagged, ...rest] = images;
  assert(moved && replacement && deleted && untagged);
  await storeImage(storage, mirrored, shared, tag("base"));
  for (const [at, image] of rest.entries()) {
    await pushImage(storage, app, image, [`v${at}`, `also-${at}`]);
    await pushImage(storage, other, image, [`v${at}`]);
  }
  await pushImage(storage, app, moved, ["latest"]);
  await pushImage(storage, app, replacement, ["latest"]);
  await pushImage(storage, web, untagged);
  await pushImage(storage, web, deleted, ["gone", "gone-too"]);
  assert.deepEqual(
    await storage.index.deleteHostedManifest(
      web,
      deleted.manifest.digest,
      UNLIMITED.isImmutable,
    ),
    { kind: "deleted", tags: ["gone", "gone-too"] },
  );
  const { kind } = await storage.index.deleteHostedTag(
    app,
    tag("also-0"),
    UNLIMITED.isImmutable,
  );
  assert.equal(kind, "deleted");
  const list = buildIndex([moved, replacement]);
  await putManifest(storage, app, list.manifest, ["multi"]);
  const artifact = buildArtifact({
    seed: "artifact",
    subject: replacement.manifest,
    artifactType: "application/vnd.example.sbom",
    annotations: { note: "kept" },
  });
  await pushImage(storage, app, artifact);
  return { rest, moved, replacement, deleted, untagged, list, artifact };
}

/** Asserts that everything is back that {@link pushAll} left. */
async function assertBack(
  storage: LocalStorage,
  pushed: Awaited<ReturnType<typeof pushAll>>,
): Promise<void> {
  const { rest, moved, replacement, deleted, untagged, artifact } = pushed;
  for (const image of rest) {
    await assertWhole(storage, app, image);
    await assertWhole(storage, other, image);
  }
  for (const image of [moved, replacement, artifact]) {
    await assertWhole(storage, app, image);
  }
  await assertWhole(storage, web, untagged);
  assert.equal(
    await storage.index.getLinkedBlob(web, deleted.manifest.digest),
    undefined,
  );
  assert.equal(await storage.index.getTag(web, tag("gone")), undefined);
  assert.equal(await storage.index.getTag(app, tag("also-0")), undefined);
  assert.deepEqual(
    await storage.index.listHostedReferrers(app, replacement.manifest.digest, {
      artifactTypes: ["application/vnd.example.sbom"],
      limit: 10,
      last: undefined,
    }),
    [
      {
        digest: artifact.manifest.digest,
        sizeBytes: artifact.manifest.sizeBytes,
        mediaType: artifact.manifest.mediaType,
        artifactType: "application/vnd.example.sbom",
        annotations: { note: "kept" },
      },
    ],
  );
}

/** What can happen to the file of an index. */
const LOSSES: readonly (readonly [string, (path: string) => void])[] = [
  [
    "deleted",
    (path) => {
      for (const suffix of ["", "-wal", "-shm"]) {
        rmSync(path + suffix, { force: true });
      }
    },
  ],
  ["truncated", (path) => truncateSync(path, 8_192)],
  ["emptied", (path) => truncateSync(path, 0)],
  [
    "overwritten",
    (path) => writeFileSync(path, Buffer.alloc(100_000, "garbage")),
  ],
];

void describe("hosted repositories whose index is lost", () => {
  for (const [name, lose] of LOSSES) {
    for (const isClean of [true, false]) {
      void it(`come back complete if it was ${name} after ${isClean ? "a clean stop" : "a kill"}`, async (test) => {
        const { root, storage } = await openedRoot(test);
        await storage.upkeep.recovered();
        const pushed = await pushAll(storage);
        await collect(storage);
        const before = await contentOf(storage);
        const totals = await storage.index.totals();
        await storage.close();
        if (!isClean) rmSync(diskLayout(root).cleanFile);
        lose(diskLayout(root).indexFile);
        const again = await open(test, root);
        // The requests wait for the rebuild.
        assert.equal(
          (await again.index.getTag(app, tag("latest")))?.digest,
          pushed.replacement.manifest.digest,
        );
        await assertBack(again, pushed);
        await again.upkeep.recovered();
        assert.deepEqual(await contentOf(again), before);
        assert.deepEqual(await again.index.totals(), totals);
        await assertClean(again);
        await again.close();
        // The compacted journal has everything too.
        lose(diskLayout(root).indexFile);
        const third = await open(test, root);
        await assertBack(third, pushed);
        await third.upkeep.recovered();
        assert.deepEqual(await contentOf(third), before);
      });
    }
  }

  void it("lose what was deleted, and keep what was pushed, after an older copy", async (test) => {
    const { root, storage } = await openedRoot(test);
    await storage.upkeep.recovered();
    const [kept, moved, replacement, deleted, late] = images;
    assert(kept && moved && replacement && deleted && late);
    await pushImage(storage, app, kept, ["kept"]);
    await pushImage(storage, app, moved, ["moves"]);
    await pushImage(storage, web, deleted, ["gone"]);
    await storage.close();
    const { indexFile } = diskLayout(root);
    copyFileSync(indexFile, `${indexFile}.old`);
    for (const isCompacted of [false, true]) {
      const now = await open(test, root);
      await now.upkeep.recovered();
      await pushImage(now, app, replacement, ["moves"]);
      await pushImage(now, other, late, ["late"]);
      await now.index.deleteHostedManifest(
        web,
        deleted.manifest.digest,
        UNLIMITED.isImmutable,
      );
      const before = await contentOf(now);
      await now.close();
      if (isCompacted) {
        // The lines of what was deleted are gone from the journal.
        await (await open(test, root)).close();
        assert.ok(
          !readFileSync(diskLayout(root).rootsFile, "utf8").includes(
            deleted.manifest.digest,
          ),
        );
      }
      copyFileSync(`${indexFile}.old`, indexFile);
      const again = await open(test, root);
      assert.equal(await again.index.getTag(web, tag("gone")), undefined);
      assert.equal(
        (await again.index.getTag(app, tag("moves")))?.digest,
        replacement.manifest.digest,
      );
      await again.upkeep.recovered();
      assert.deepEqual(await contentOf(again), before);
      await assertWhole(again, other, late);
      await assertWhole(again, app, kept);
      await assertClean(again);
      await again.close();
    }
  });

  void it("complete the recovery after a replay that failed and was repeated", async (test) => {
    const { root, storage } = await openedRoot(test);
    await storage.upkeep.recovered();
    const [image] = images;
    assert(image);
    await pushImage(storage, app, image, ["v1"]);
    await storage.close();
    rmSync(diskLayout(root).indexFile);

    const { rootsFile } = diskLayout(root);
    let failures = 0;
    const fileSystem: FileSystem = {
      ...nodeFileSystem,
      open: async (path, flags) => {
        if (path === rootsFile && failures === 0) {
          failures += 1;
          throw Object.assign(new Error("EIO"), { code: "EIO" });
        }
        return nodeFileSystem.open(path, flags);
      },
    };
    const messages: string[] = [];
    const write = (_fields: unknown, message?: string): void => {
      messages.push(message ?? "");
    };
    const log = { info: write, warn: write, error: write };
    const again = await open(test, root, { fileSystem, log });
    await again.upkeep.recovered();
    assert(
      messages.some((message) =>
        message.startsWith("could not replay the journal"),
      ),
      messages.join("; "),
    );
    const found = await again.index.getTag(app, tag("v1"));
    assert.equal(found?.digest, image.manifest.digest);
    await nextTurn();
    await again.upkeep.recovered();
    await again.close();

    messages.length = 0;
    const third = await open(test, root, { log });
    await third.upkeep.recovered();
    assert.deepEqual(messages, ["opened the storage root"]);
    await assertWhole(third, app, image);
  });

  void it("keep rows that are newer than an older copy of the journal", async (test) => {
    const { root, storage } = await openedRoot(test);
    await storage.upkeep.recovered();
    const [first, second] = images;
    assert(first && second);
    await pushImage(storage, app, first, ["first"]);
    await storage.close();
    const { rootsFile, cleanFile } = diskLayout(root);
    copyFileSync(rootsFile, `${rootsFile}.old`);
    const now = await open(test, root);
    await now.upkeep.recovered();
    await pushImage(now, app, second, ["second"]);
    await now.close();
    copyFileSync(`${rootsFile}.old`, rootsFile);
    writeFileSync(cleanFile, "another run");
    const again = await open(test, root);
    await again.upkeep.recovered();
    await assertWhole(again, app, first);
    await assertWhole(again, app, second);
  });

  void it("come back with manifests of more than 4 MiB", async (test) => {
    const { root, storage } = await openedRoot(test);
    await storage.upkeep.recovered();
    const [image] = images;
    assert(image);
    await pushImage(storage, app, image);
    const large = manifestOf(
      {
        schemaVersion: 2,
        mediaType: image.manifest.mediaType,
        config: {
          mediaType: image.config.mediaType,
          digest: image.config.digest,
          size: image.config.sizeBytes,
        },
        layers: [],
        annotations: { text: "x".repeat(5 * 1024 * 1024) },
      },
      image.manifest.mediaType,
    );
    const { kind } = await putManifest(storage, app, large, ["large"]);
    assert.equal(kind, "stored");
    await assertClean(storage);
    await storage.close();
    rmSync(diskLayout(root).indexFile);
    const again = await open(test, root);
    assert.equal(
      (await again.index.getTag(app, tag("large")))?.digest,
      large.digest,
    );
    await again.upkeep.recovered();
    await assertClean(again);
  });

  void it("keep the lines of manifests whose bytes are missing, for a later start", async (test) => {
    const { root, storage } = await openedRoot(test);
    await storage.upkeep.recovered();
    const [image, healthy] = images;
    assert(image && healthy);
    await pushImage(storage, app, image, ["v1"]);
    await pushImage(storage, app, healthy, ["v2"]);
    await storage.close();
    const layout = diskLayout(root);
    const path = layout.blobFile(image.manifest.digest);
    copyFileSync(path, `${root}/away`);
    rmSync(path);
    for (let start = 0; start < 2; start += 1) {
      rmSync(layout.indexFile);
      const without = await open(test, root);
      await without.upkeep.recovered();
      assert.equal(await without.index.getTag(app, tag("v1")), undefined);
      await assertWhole(without, app, healthy);
      await without.close();
      assert.equal(existsSync(layout.cleanFile), false);
    }
    copyFileSync(`${root}/away`, path);
    const again = await open(test, root);
    await again.upkeep.recovered();
    await assertWhole(again, app, image);
    assert.equal(
      (await again.index.getTag(app, tag("v1")))?.digest,
      image.manifest.digest,
    );
    await again.close();
    assert.equal(existsSync(layout.cleanFile), true);
  });
});

/** A root that was killed after a line was synced. */
async function killed(test: AfterTest) {
  const { root, storage } = await openedRoot(test);
  await storage.upkeep.recovered();
  const [image, later] = images;
  assert(image && later);
  await pushImage(storage, app, image, ["v1"]);
  for (const blob of later.blobs) await uploadBlob(storage, app, blob);
  await storage.blobs.put(later.manifest.digest, later.manifest.bytes);
  await storage.close();
  const layout = diskLayout(root);
  rmSync(layout.cleanFile);
  const append = (
    name: "tag" | "digest",
    digest: Digest | undefined,
    text = "v1",
  ): void => {
    appendFileSync(
      layout.rootsFile,
      lineOf({
        key: app,
        reference:
          name === "tag"
            ? { kind: "tag", tag: tag(text) }
            : { kind: "digest", digest: digest ?? image.manifest.digest },
        digest,
        mediaType: digest && image.manifest.mediaType,
        isPinned: false,
        isHosted: true,
        atMs: Date.now(),
      }),
    );
  };
  return { root, image, later, append };
}

void describe("a line whose row was not committed before a kill", () => {
  void it("puts the manifest and moves the tag", async (test) => {
    const { root, later, append } = await killed(test);
    append("digest", later.manifest.digest);
    append("tag", later.manifest.digest);
    const again = await open(test, root);
    assert.equal(
      (await again.index.getTag(app, tag("v1")))?.digest,
      later.manifest.digest,
    );
    await assertWhole(again, app, later);
    await again.upkeep.recovered();
    await assertClean(again);
  });

  void it("deletes the tag, and keeps the manifest", async (test) => {
    const { root, image, append } = await killed(test);
    append("tag", undefined);
    const again = await open(test, root);
    assert.equal(await again.index.getTag(app, tag("v1")), undefined);
    await assertWhole(again, app, image);
    await again.upkeep.recovered();
    await assertClean(again);
  });

  void it("deletes the tag and the manifest", async (test) => {
    const { root, image, append } = await killed(test);
    append("tag", undefined);
    appendFileSync(
      diskLayout(root).rootsFile,
      lineOf({
        key: app,
        reference: { kind: "digest", digest: image.manifest.digest },
        digest: undefined,
        mediaType: undefined,
        isPinned: false,
        isHosted: true,
        atMs: Date.now(),
      }),
    );
    const again = await open(test, root);
    assert.equal(await again.index.getTag(app, tag("v1")), undefined);
    assert.equal(
      await again.index.getLinkedBlob(app, image.manifest.digest),
      undefined,
    );
    await again.upkeep.recovered();
    await assertClean(again);
  });

  void it("is ignored if a later line agrees with the row", async (test) => {
    const { root, image, later, append } = await killed(test);
    append("tag", later.manifest.digest);
    append("tag", image.manifest.digest);
    const again = await open(test, root);
    await again.upkeep.recovered();
    assert.equal(
      (await again.index.getTag(app, tag("v1")))?.digest,
      image.manifest.digest,
    );
  });

  void it("is ignored if a crash cut it", async (test) => {
    const { root, image } = await killed(test);
    appendFileSync(
      diskLayout(root).rootsFile,
      '{"ref":"local/team/app:v1","digest":null,"hosted":tr',
    );
    const again = await open(test, root);
    await again.upkeep.recovered();
    assert.equal(
      (await again.index.getTag(app, tag("v1")))?.digest,
      image.manifest.digest,
    );
  });
});

void describe("published bytes of a push that got no row", () => {
  void it("are removed after a kill, but not those that a later push recorded", async (test) => {
    const { root, storage } = await openedRoot(test);
    await storage.upkeep.recovered();
    const [image, known] = images;
    assert(image && known);
    const layout = diskLayout(root);
    const orphan = image.manifest;
    await pushImage(storage, app, known, ["v1"]);
    for (const { digest, bytes } of [orphan, known.manifest]) {
      await storage.index.beginHostedWrite(web, {
        digest,
        sizeBytes: bytes.length,
      });
      await storage.blobs.put(digest, bytes);
    }
    await storage.close();
    rmSync(layout.cleanFile);
    const again = await open(test, root);
    await again.upkeep.recovered();
    assert.equal((await again.index.listIntents()).length, 2);
    // Another push is about to record it.
    const release = await again.blobs.hold(orphan.digest);
    await again.upkeep.clearLeftovers(Infinity);
    assert.equal(existsSync(layout.blobFile(orphan.digest)), true);
    release();
    await again.upkeep.clearLeftovers(Infinity);
    assert.equal(existsSync(layout.blobFile(orphan.digest)), false);
    assert.deepEqual(await again.index.listIntents(), []);
    await assertWhole(again, app, known);
    await assertClean(again);
  });
});

void describe("requests while hosted lines are replayed", () => {
  void it("never get an answer from the incomplete index", async (test) => {
    const { root, storage } = await openedRoot(test);
    await storage.upkeep.recovered();
    const [image] = images;
    assert(image);
    await pushImage(storage, app, image, ["v1"]);
    await storage.close();
    rmSync(diskLayout(root).indexFile);
    const reads = Promise.withResolvers<void>();
    const again = await open(test, root, {
      fileSystem: blockedReads(diskLayout(root).rootsFile, reads.promise),
    });
    const { index } = again;
    const answers = {
      tag: index.getTag(app, tag("v1")),
      blob: index.getLinkedBlob(app, image.manifest.digest),
      tags: index.listTags(app, 10, undefined),
      hostedTags: index.listHostedTags(app, 10, undefined),
      catalog: index.listRepositories(10, undefined),
      registries: index.listHostedRegistries(),
      deletion: index.deleteHostedTag(app, tag("none"), UNLIMITED.isImmutable),
    };
    const settled: string[] = [];
    for (const [name, answer] of Object.entries(answers)) {
      void (answer as Promise<unknown>).then(() => settled.push(name));
    }
    for (let turn = 0; turn < 20; turn += 1) await nextTurn();
    assert.deepEqual(settled, []);
    await assert.rejects(
      index.getBlob(image.manifest.digest),
      IndexRestoringError,
    );
    assert.deepEqual(await index.listCondemned(10, new Set()), []);
    reads.resolve();
    assert.equal((await answers.tag)?.digest, image.manifest.digest);
    assert.equal((await answers.blob)?.digest, image.manifest.digest);
    assert.deepEqual(await answers.tags, ["v1"]);
    assert.deepEqual(await answers.catalog, [app]);
    assert.deepEqual(await answers.deletion, { kind: "absent" });
  });
});

/** A file system whose reads of one file wait. */
function blockedReads(path: string, until: Promise<void>) {
  const waiting = new Set<number>();
  return {
    ...nodeFileSystem,
    open: async (name: string, flags: number) => {
      const fd = await nodeFileSystem.open(name, flags);
      if (name === path) waiting.add(fd);
      return fd;
    },
    close: (fd: number) => {
      waiting.delete(fd);
      return nodeFileSystem.close(fd);
    },
    read: async (
      fd: number,
      target: Uint8Array,
      offset: number,
      length: number,
      position: number,
    ) => {
      if (waiting.has(fd)) await until;
      return nodeFileSystem.read(fd, target, offset, length, position);
    },
  };
}
