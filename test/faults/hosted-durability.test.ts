import assert from "node:assert/strict";
import {
  existsSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { describe, it } from "node:test";
import Database from "better-sqlite3";
import type { Digest } from "../../src/oci/digest.ts";
import type { RepositoryKey } from "../../src/oci/reference.ts";
import type { FileSystem } from "../../src/storage/local/root/file-system.ts";
import {
  type LocalStorage,
  openLocalStorage,
} from "../../src/storage/local/open-local-storage.ts";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { keyOf, tag } from "../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "../support/after-test.ts";
import { CrashFileSystem } from "../support/crash-file-system.ts";
import { FaultyFileSystem } from "../support/faulty-file-system.ts";
import { pushImage } from "../support/hosted-pushes.ts";
import { UNLIMITED } from "../support/hosted-store.ts";
import {
  buildArtifact,
  buildImage,
  type TestImage,
} from "../support/image-builder.ts";
import { dropRoot, memoryRoot } from "../support/memory-root.ts";
import { quietLog } from "../support/pulling-mirror.ts";
import { chooseSeed, seededRandom } from "../support/seeded-choice.ts";
import { soakFactor } from "../support/soak.ts";

const app = keyOf("local", "team/app");
const web = keyOf("second", "web");
const { isImmutable } = UNLIMITED;
const PUSHES = 200;
const POWER_LOSSES = Math.round(600 * soakFactor(0.1));

async function open(
  root: string,
  options: { fileSystem?: FileSystem; bootId?: string } = {},
): Promise<LocalStorage> {
  const storage = await openLocalStorage({
    root,
    clock: systemClock,
    log: quietLog,
    ...options,
  });
  return storage;
}

const base = buildImage({ seed: "base", layers: [30_000, 4_000] });

/** Push number `at`: every fifth has no tag, every seventh refers to the one before it. */
function pushOf(at: number) {
  const key = at % 2 === 0 ? app : web;
  const image = imageOf(at);
  const tags =
    at % 5 === 0 ? [] : [`v${at}`, ...(at % 3 === 0 ? ["latest"] : [])];
  return { key, image, tags };
}

function imageOf(at: number): TestImage {
  return at % 7 === 6
    ? buildArtifact({
        seed: `push/${at}`,
        subject: imageOf(at - 2).manifest,
        artifactType: "application/vnd.example.sbom",
      })
    : buildImage({ seed: `push/${at}`, layers: [...base.layers, 50 + at] });
}

void describe("two hundred pushes", () => {
  void it("are all back after the index was deleted, truncated and overwritten; deletions stay", async (test) => {
    const root = memoryRoot();
    const { indexFile, cleanFile } = diskLayout(root);
    const storage = await open(root);
    await storage.upkeep.recovered();
    const deleted = new Set<number>();
    for (let at = 0; at < PUSHES; at += 1) {
      const { key, image, tags } = pushOf(at);
      await pushImage(storage, key, image, tags);
      if (at % 10 !== 4) continue;
      const { digest } = image.manifest;
      await storage.index.deleteHostedManifest(key, digest, isImmutable);
      deleted.add(at);
    }
    await storage.close();
    rmSync(cleanFile);
    for (const lose of [
      () => rmSync(indexFile),
      () => truncateSync(indexFile, 4_096 * 10),
      () => writeFileSync(indexFile, Buffer.alloc(500_000, 7)),
    ]) {
      for (const suffix of ["-wal", "-shm"]) {
        rmSync(indexFile + suffix, { force: true });
      }
      lose();
      const started = performance.now();
      const again = await open(root);
      const expected = new Map<string, Digest>();
      for (let at = 0; at < PUSHES; at += 1) {
        const { key, image, tags } = pushOf(at);
        const { digest } = image.manifest;
        const row = await again.index.getLinkedBlob(key, digest);
        assert.equal(row?.digest, deleted.has(at) ? undefined : digest);
        for (const name of tags) {
          if (deleted.has(at)) expected.delete(`${key.upstream} ${name}`);
          else expected.set(`${key.upstream} ${name}`, digest);
        }
        if (deleted.has(at)) continue;
        for (const blob of image.blobs) {
          const linked = await again.index.getLinkedBlob(key, blob.digest);
          assert.equal(linked?.sizeBytes, blob.sizeBytes);
        }
        if (at % 7 !== 6) continue;
        const referrers = await again.index.listHostedReferrers(
          key,
          imageOf(at - 2).manifest.digest,
          { artifactTypes: [], limit: 10, last: undefined },
        );
        assert.deepEqual(
          referrers.map((found) => [found.digest, found.artifactType]),
          [[digest, "application/vnd.example.sbom"]],
        );
      }
      for (const key of [app, web]) {
        const tags = await again.index.listHostedTags(key, 1_000, undefined);
        assert.deepEqual(
          new Map(
            tags.map((one) => [`${key.upstream} ${one.tag}`, one.digest]),
          ),
          new Map(
            [...expected].filter(([id]) => id.startsWith(`${key.upstream} `)),
          ),
        );
      }
      test.diagnostic(
        `all back after ${Math.round(performance.now() - started)} ms`,
      );
      await again.upkeep.recovered();
      const { findings } = await again.upkeep.scrub({ isRepair: false });
      assert.deepEqual(findings, []);
      await again.close();
    }
    dropRoot(root);
  });
});

const first = buildImage({ seed: "first", layers: [9_000] });
const second = buildImage({ seed: "second", layers: [...first.layers, 3_000] });

/** Calls of a push that write, in the order in which a disk may reject them. */
const CALLS = ["open", "writev", "fdatasync", "fsync", "rename"] as const;

void describe("a push whose disk rejects a call", () => {
  for (const call of CALLS) {
    for (const code of ["ENOSPC", "EIO"]) {
      void it(`is done or refused, and is done when repeated: each ${call} with ${code}`, async (test) => {
        let refused = 0;
        for (let nth = 1; ; nth += 1) {
          const { root, faults, storage } = await prepared(test);
          faults.fail(call, code, nth);
          const count = faults.countOf(call);
          const isDone = await pushImage(storage, app, second, [
            "moves",
            "new",
          ]).then(
            () => true,
            () => false,
          );
          if (isDone && faults.countOf(call) - count < nth) {
            await storage.close();
            break;
          }
          if (!isDone) refused += 1;
          const moved = await storage.index.getTag(app, tag("moves"));
          const added = await storage.index.getTag(app, tag("new"));
          const { digest } = second.manifest;
          // Both tags or none; a push that was answered is there.
          assert.equal(moved?.digest === digest, added !== undefined);
          if (isDone) assert.equal(added?.digest, digest);
          await pushImage(storage, app, second, ["moves", "new"]);
          await storage.upkeep.clearLeftovers(Infinity);
          const { findings } = await storage.upkeep.scrub({ isRepair: false });
          assert.deepEqual(findings, []);
          await storage.close();
          rmSync(diskLayout(root).indexFile);
          const again = await open(root);
          for (const name of ["moves", "new"]) {
            const row = await again.index.getTag(app, tag(name));
            assert.equal(row?.digest, digest, `${call} ${nth}: ${name}`);
          }
          await again.close();
          dropRoot(root);
        }
        assert.ok(refused > 0);
        test.diagnostic(`${call} ${code}: ${refused} refused pushes`);
      });
    }
  }

  void it("is refused while the disk is full, and the tag that it would move stays", async (test) => {
    const { faults, storage, root } = await prepared(test);
    faults.failFrom("writev", "ENOSPC");
    for (let attempt = 0; attempt < 3; attempt += 1) {
      await assert.rejects(pushImage(storage, app, second, ["moves"]));
      assert.equal(
        (await storage.index.getTag(app, tag("moves")))?.digest,
        first.manifest.digest,
      );
    }
    await assert.rejects(
      storage.index.deleteHostedTag(app, tag("moves"), isImmutable),
      { code: "ENOSPC" },
    );
    await storage.close();
    assert.equal(existsSync(diskLayout(root).cleanFile), false);
    const again = await open(root);
    assert.equal(
      (await again.index.getTag(app, tag("moves")))?.digest,
      first.manifest.digest,
    );
    await again.close();
    dropRoot(root);
  });
});

async function prepared(test: AfterTest) {
  const root = memoryRoot();
  const faults = new FaultyFileSystem();
  const storage = await open(root, { fileSystem: faults.fileSystem });
  await storage.upkeep.recovered();
  await storage.upkeep.clearLeftovers(Infinity);
  await pushImage(storage, app, first, ["moves"]);
  releaseAfter(test, () => dropRoot(root));
  return { root, faults, storage };
}

void describe("a power failure during pushes and deletions", () => {
  void it("loses nothing acknowledged, at any moment, with the index of that moment or none", async (test) => {
    const seed = chooseSeed();
    const random = seededRandom(seed);
    const root = memoryRoot();
    const crash = new CrashFileSystem(root);
    const storage = await open(root, {
      fileSystem: crash.fileSystem,
      bootId: "before",
    });
    await storage.upkeep.recovered();
    const acknowledged: {
      readonly at: number;
      readonly tags: ReadonlyMap<string, Digest>;
    }[] = [{ at: 0, tags: new Map() }];
    /** A state of the index that a power failure may leave: acknowledged rows are synced. */
    const indexes: { readonly at: number; readonly bytes: Buffer }[] = [];
    const reader = new Database(diskLayout(root).indexFile, { readonly: true });
    const note = (name: string, digest: Digest | undefined): void => {
      const tags = new Map(acknowledged.at(-1)?.tags);
      if (digest === undefined) tags.delete(name);
      else tags.set(name, digest);
      acknowledged.push({ at: crash.moments, tags });
      indexes.push({ at: crash.moments, bytes: reader.serialize() });
    };
    for (let at = 1; at <= 6; at += 1) {
      const image = imageOf(at);
      for (const name of [`v${at}`, "latest"]) {
        await pushImage(storage, app, image, [name]);
        note(name, image.manifest.digest);
      }
      if (at % 3 !== 0) continue;
      await storage.index.deleteHostedTag(app, tag(`v${at}`), isImmutable);
      note(`v${at}`, undefined);
    }
    const { moments } = crash;
    reader.close();
    await storage.close();
    for (let loss = 0; loss < POWER_LOSSES; loss += 1) {
      const moment = Math.floor(random() * (moments + 1));
      const after = memoryRoot();
      crash.layOut(after, moment, random);
      const sure = acknowledged.filter(({ at }) => at <= moment).at(-1)?.tags;
      const next = acknowledged.find(({ at }) => at > moment)?.tags;
      const index = indexes.findLast(({ at }) => at <= moment);
      if (index !== undefined && loss % 2 === 0) {
        writeFileSync(diskLayout(after).indexFile, index.bytes, {
          mode: 0o600,
        });
      }
      const again = await open(after, { bootId: "after" });
      const found = new Map(
        (await again.index.listHostedTags(app, 100, undefined)).map((one) => [
          String(one.tag),
          one.digest,
        ]),
      );
      for (const name of new Set([...(sure?.keys() ?? []), ...found.keys()])) {
        const allowed = [sure?.get(name), ...(next ? [next.get(name)] : [])];
        assert.ok(
          allowed.includes(found.get(name)),
          `seed ${seed}, moment ${moment}, ${name}: got ${found.get(name)}; expected ${allowed.join(" or ")}; ${after}`,
        );
      }
      for (const digest of found.values()) {
        const row = await again.index.getLinkedBlob(app, digest);
        assert.equal(row?.digest, digest);
        assert.notEqual(
          await again.blobs.read(digest, row?.sizeBytes ?? 0),
          undefined,
        );
      }
      await again.upkeep.recovered();
      const { findings } = await again.upkeep.scrub({ isRepair: false });
      assert.deepEqual(findings, [], `seed ${seed}, moment ${moment}`);
      await again.close();
      dropRoot(after);
    }
    dropRoot(root);
    test.diagnostic(
      `power loss: ${POWER_LOSSES} states of ${moments} moments, 0 failures, seed ${seed}`,
    );
  });
});

void describe("damaged bytes of a hosted repository", () => {
  void it("are found, are removed by a repair, and are repaired by a push", async () => {
    const root = memoryRoot();
    const storage = await open(root);
    await storage.upkeep.recovered();
    await pushImage(storage, app, second, ["v1"]);
    await pushImage(storage, web, first, ["v1"]);
    const layout = diskLayout(root);
    const [layer] = second.layers;
    assert(layer);
    for (const { digest } of [layer, second.manifest]) {
      const path = layout.blobFile(digest);
      const bytes = readFileSync(path);
      bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
      writeFileSync(path, bytes);
      for (const isRepair of [false, true]) {
        const dropped: unknown[] = [];
        const { findings } = await storage.upkeep.scrub({
          isRepair,
          onDropped: (one) => dropped.push(one.repositories),
        });
        assert.deepEqual(
          findings.map((finding) => [
            finding.code,
            finding.digest,
            finding.repaired,
          ]),
          [["blob-corrupt", digest, isRepair]],
        );
        const holders: readonly RepositoryKey[] =
          digest === layer.digest ? [app, web] : [app];
        assert.deepEqual(dropped, isRepair ? [holders] : []);
      }
      assert.equal(existsSync(path), false);
      // The answer to a HEAD is that the blob is missing, so that a client uploads it.
      assert.equal(await storage.index.getLinkedBlob(app, digest), undefined);
      if (digest === layer.digest) {
        assert.equal(
          (await storage.index.getTag(app, tag("v1")))?.digest,
          second.manifest.digest,
        );
      }
      await pushImage(storage, app, second, ["v1"]);
      await pushImage(storage, web, first, ["v1"]);
      const row = await storage.index.getLinkedBlob(app, digest);
      assert.equal(row?.digest, digest);
      const { findings } = await storage.upkeep.scrub({ isRepair: false });
      assert.deepEqual(findings, []);
    }
    await storage.close();
    dropRoot(root);
  });
});
