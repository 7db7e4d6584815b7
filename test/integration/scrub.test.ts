import { SCRUB_CODES, type ScrubCode } from "../../src/storage/scrub-report.ts";
import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import { openLocalStorage } from "../../src/storage/local/open-local-storage.ts";
import { openDatabase } from "../../src/storage/local/index/open-sqlite-index.ts";
import { scrubRoot } from "../../src/storage/local/upkeep/scrub-root.ts";
import { keyOf, tag } from "../contract/metadata-index-contract.ts";
import type { AfterTest } from "../support/after-test.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { buildImage } from "../support/image-builder.ts";
import { storeImage } from "../support/stored-images.ts";
import { tempDir } from "../support/temp-dir.ts";

const app = keyOf("docker.io", "library/app");
const image = buildImage({ seed: "scrubbed", layers: [100_000, 5_000_000] });
const [small, large] = image.layers;
assert(small !== undefined && large !== undefined);
const ignore = (): void => undefined;
const log = { info: ignore, warn: ignore, error: ignore };

/** Creates a root with one image, and stops cleanly. */
async function writeRoot(test: AfterTest): Promise<string> {
  const root = await tempDir(test);
  const cache = await openLocalStorage({ root, clock: new FakeClock(), log });
  await storeImage(cache, app, image, tag("latest"));
  await cache.close();
  return root;
}

function scrub(root: string, isRepair = false) {
  return scrubRoot({ root, clock: new FakeClock(), isRepair });
}

function sql(root: string, text: string): void {
  const database = openDatabase(diskLayout(root).indexFile);
  database.pragma("foreign_keys = OFF");
  database.exec(text);
  database.close();
}

interface Fault {
  readonly name: string;
  readonly code: ScrubCode;
  readonly path: string;
  readonly digest: string | null;
  readonly make: (root: string) => void;
  /** Blobs that remain after the repair; all four if absent. */
  readonly blobsAfter?: number;
}

const blobPath = (digest: string): string =>
  `blobs/${digest.replace(":", "/")}`;
const fileOf = (root: string, digest: string): string =>
  join(root, blobPath(digest));

const FAULTS: readonly Fault[] = [
  {
    name: "a bit that flipped in a large blob",
    code: "blob-corrupt",
    path: blobPath(large.digest),
    digest: large.digest,
    make: (root) => {
      const bytes = large.bytes();
      bytes[2_500_000] = (bytes[2_500_000] ?? 0) ^ 1;
      writeFileSync(fileOf(root, large.digest), bytes);
    },
    blobsAfter: 3,
  },
  {
    name: "a blob that was cut",
    code: "blob-corrupt",
    path: blobPath(small.digest),
    digest: small.digest,
    make: (root) => truncateSync(fileOf(root, small.digest), 1_000),
    blobsAfter: 3,
  },
  {
    name: "a blob that was emptied",
    code: "blob-corrupt",
    path: blobPath(small.digest),
    digest: small.digest,
    make: (root) => truncateSync(fileOf(root, small.digest), 0),
    blobsAfter: 3,
  },
  {
    name: "a folder in place of a blob",
    code: "not-a-blob",
    path: blobPath(small.digest),
    digest: small.digest,
    make: (root) => {
      rmSync(fileOf(root, small.digest));
      mkdirSync(join(fileOf(root, small.digest), "below"), { recursive: true });
    },
    blobsAfter: 3,
  },
  {
    name: "a symbolic link in place of a blob, although it leads to the bytes",
    code: "not-a-blob",
    path: blobPath(small.digest),
    digest: small.digest,
    make: (root) => {
      renameSync(fileOf(root, small.digest), join(root, "elsewhere"));
      symlinkSync(join(root, "elsewhere"), fileOf(root, small.digest));
    },
    blobsAfter: 3,
  },
  {
    name: "a foreign name among the blobs",
    code: "not-a-blob",
    path: "blobs/sha256/README.txt",
    digest: null,
    make: (root) => writeFileSync(join(root, "blobs/sha256/README.txt"), "hi"),
  },
  {
    name: "a blob that every user may write",
    code: "blob-mode",
    path: blobPath(small.digest),
    digest: small.digest,
    make: (root) => chmodSync(fileOf(root, small.digest), 0o666),
  },
  {
    name: "a size that is wrong in the index",
    code: "size-differs",
    path: blobPath(small.digest),
    digest: small.digest,
    make: (root) =>
      sql(root, "UPDATE blobs SET size_bytes = 7 WHERE size_bytes = 100000"),
  },
  {
    name: "a blob whose file is missing",
    code: "file-missing",
    path: blobPath(large.digest),
    digest: large.digest,
    make: (root) => rmSync(fileOf(root, large.digest)),
    blobsAfter: 3,
  },
  {
    name: "a blob that is not in the index",
    code: "row-missing",
    path: blobPath(large.digest),
    digest: large.digest,
    make: (root) =>
      sql(
        root,
        `PRAGMA foreign_keys = ON; DELETE FROM blobs WHERE size_bytes = 5000000`,
      ),
  },
  {
    name: "an edge that is wrong in the index",
    code: "manifest-differs",
    path: blobPath(image.manifest.digest),
    digest: image.manifest.digest,
    make: (root) => sql(root, "DELETE FROM edges WHERE size_bytes = 5000000"),
  },
  {
    name: "a media type that is wrong in the index",
    code: "manifest-differs",
    path: blobPath(image.manifest.digest),
    digest: image.manifest.digest,
    make: (root) =>
      sql(
        root,
        `UPDATE manifests SET media_type_id = (
           SELECT id FROM media_types WHERE name LIKE '%layer%')`,
      ),
  },
  {
    name: "an unknown file among the partials",
    code: "partial-stray",
    path: "partial/temporary-put-9",
    digest: null,
    make: (root) => writeFileSync(join(root, "partial/temporary-put-9"), "x"),
  },
  {
    name: "wrong totals",
    code: "totals-differ",
    path: "index.sqlite",
    digest: null,
    make: (root) => sql(root, "UPDATE totals SET blob_bytes = blob_bytes + 1"),
  },
  {
    name: "a tag whose manifest is missing",
    code: "reference-broken",
    path: "index.sqlite",
    digest: null,
    make: (root) =>
      sql(
        root,
        `INSERT INTO tags (repository_id, name, manifest_id, fetched_at_ms, verified_at_ms, used_at_ms)
         SELECT id, 'broken', 999, 1, 1, 1 FROM repositories WHERE name <> ''`,
      ),
  },
  {
    name: "a time in the future",
    code: "time-ahead",
    path: "index.sqlite",
    digest: null,
    make: (root) =>
      sql(root, `UPDATE blobs SET used_at_ms = ${Date.UTC(2036, 0, 1)}`),
  },
  {
    name: "an index that is not a database",
    code: "index-damaged",
    path: "index.sqlite",
    digest: null,
    make: (root) =>
      writeFileSync(diskLayout(root).indexFile, Buffer.alloc(9_000, 7)),
  },
];

void describe("scrub", () => {
  void it("finds nothing in an intact root, and changes nothing", async (test) => {
    const root = await writeRoot(test);
    const before = statSync(diskLayout(root).cleanFile).mtimeMs;
    const report = await scrub(root);
    assert.deepEqual(report, {
      blobs: 4,
      bytes: 5_100_000 + image.config.sizeBytes + image.manifest.sizeBytes,
      findings: [],
    });
    assert.equal(statSync(diskLayout(root).cleanFile).mtimeMs, before);
  });

  for (const { name, code, path, digest, make, blobsAfter } of FAULTS) {
    void it(`finds ${name} (${code}), repairs it, and then finds nothing`, async (test) => {
      const root = await writeRoot(test);
      make(root);
      const found = await scrub(root);
      assert.deepEqual(
        found.findings.filter((finding) => finding.code === code),
        [{ code, path, digest, repaired: false }],
      );
      // Without repair, nothing is changed.
      assert.deepEqual(await scrub(root), found);
      const repaired = await scrub(root, true);
      assert.deepEqual(
        repaired.findings.filter((finding) => finding.code === code),
        [{ code, path, digest, repaired: true }],
      );
      const after = await scrub(root, true);
      assert.deepEqual(after.findings, []);
      assert.equal(after.blobs, blobsAfter ?? 4);
      const cache = await openLocalStorage({
        root,
        clock: new FakeClock(),
        log,
      });
      await cache.upkeep.recovered();
      assert.deepEqual(
        (await cache.upkeep.scrub({ isRepair: false })).findings,
        [],
      );
      assert.equal((await cache.index.totals()).blobs, blobsAfter ?? 4);
      await cache.close();
    });
  }

  void it("does not report a readable mode, does not change that of a file which another folder has too, and removes a wrong one by name only", async (test) => {
    const root = await writeRoot(test);
    const other = join(await tempDir(test), "data");
    linkSync(fileOf(root, small.digest), other);
    chmodSync(other, 0o644);
    assert.deepEqual((await scrub(root, true)).findings, []);
    assert.equal(statSync(other).mode & 0o777, 0o644);
    rmSync(other);
    assert.deepEqual((await scrub(root)).findings, []);
    assert.equal(statSync(fileOf(root, small.digest)).mode & 0o777, 0o644);
    assert.deepEqual((await scrub(root, true)).findings, []);
    assert.equal(statSync(fileOf(root, small.digest)).mode & 0o777, 0o600);
    linkSync(fileOf(root, small.digest), other);
    truncateSync(other, 10);
    const { findings } = await scrub(root, true);
    assert.deepEqual(
      findings.map(({ code, repaired }) => ({ code, repaired })),
      [{ code: "blob-corrupt", repaired: true }],
    );
    assert.equal(existsSync(fileOf(root, small.digest)), false);
    assert.equal(statSync(other).size, 10);
  });

  void it("has a test for each code except blob-unreadable, which needs a broken disk", () => {
    assert.deepEqual(
      new Set([...FAULTS.map(({ code }) => code), "blob-unreadable"]),
      new Set(SCRUB_CODES),
    );
  });

  void it("finds nothing in a root without an index, and creates none", async (test) => {
    const root = await writeRoot(test);
    rmSync(diskLayout(root).indexFile);
    const report = await scrub(root);
    assert.equal(report.findings.length, 4);
    assert(report.findings.every(({ code }) => code === "row-missing"));
    assert.equal(existsSync(diskLayout(root).indexFile), false);
    assert.equal((await scrub(root, true)).findings.length, 4);
    assert.deepEqual((await scrub(root)).findings, []);
  });
});
