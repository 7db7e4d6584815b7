import assert from "node:assert/strict";
import {
  appendFile,
  link,
  mkdir,
  readdir,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import Database from "better-sqlite3";
import { releaseAfter } from "../../support/after-test.ts";
import {
  buildImage,
  buildMultiArch,
  seededBlob,
} from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const BLOB = seededBlob("healing", 300_000);
const IMAGE = buildImage({ seed: "healing", layers: [BLOB] });
const BLOB_PATH = `/v2/a/blobs/${BLOB.digest}`;
const YEAR_MS = 365 * 24 * 60 * 60 * 1000;
const TAG_PATH = "/v2/a/manifests/v";

async function setUp(
  test: AfterTest,
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("a", IMAGE, "v");
  const mirror = await startMirror(test, [upstreamOf(upstream)]);
  await pullImage(mirror, "a", "v");
  upstream.forgetRequests();
  return { upstream, mirror };
}

/** Damage that another process can do to a file. */
const HARMS: readonly (readonly [
  string,
  (file: string, outside: string) => Promise<void>,
])[] = [
  ["deleted", (file) => rm(file)],
  ["emptied", (file) => truncate(file, 0)],
  ["cut", (file) => truncate(file, 100)],
  ["grown", (file) => appendFile(file, "x")],
  [
    "replaced by a symbolic link to its moved file",
    async (file, outside) => {
      await rename(file, outside);
      await symlink(outside, file);
    },
  ],
  [
    "replaced by a folder that is not empty",
    async (file) => {
      await rm(file);
      await mkdir(file);
      await writeFile(join(file, "x"), "");
    },
  ],
];

void describe("a stored file", () => {
  void it("that another folder has too is fetched into a new file", async (test) => {
    const { mirror } = await setUp(test);
    const file = mirror.blobFile(BLOB.digest);
    const outside = join(mirror.root, "outside");
    await link(file, outside);
    await truncate(outside, 100);
    const got = await mirror.get(BLOB_PATH);
    assert.deepEqual([got.status, got.sha256], [200, BLOB.digest]);
    await mirror.settled();
    assert.equal((await stat(outside)).size, 100);
    assert.equal((await stat(file)).size, BLOB.sizeBytes);
  });

  for (const [name, harm] of HARMS) {
    void it(`of a blob that was ${name} is fetched again within the request`, async (test) => {
      const { upstream, mirror } = await setUp(test);
      const file = mirror.blobFile(BLOB.digest);
      await harm(file, join(mirror.root, "outside"));
      const got = await mirror.get(BLOB_PATH);
      assert.deepEqual([got.status, got.end], [200, "complete"]);
      assert.equal(got.sha256, BLOB.digest);
      assert.equal(upstream.count({ kind: "blob", method: "GET" }), 1);
      await mirror.settled();
      const hit = await mirror.get(BLOB_PATH);
      assert.equal(cacheStatusOf(hit), "hit");
      assert.equal(hit.sha256, BLOB.digest);
      assert.equal(upstream.count(), 1);
      const partials = await readdir(join(mirror.root, "partial"));
      assert.deepEqual(partials, ["boot-id"]);
    });

    void it(`of a manifest that was ${name} is fetched again, by tag and by digest`, async (test) => {
      const { upstream, mirror } = await setUp(test);
      const { manifest } = IMAGE;
      const digestPath = `/v2/a/manifests/${manifest.digest}`;
      for (const path of [TAG_PATH, digestPath]) {
        // Empties the memory, which would serve the manifest.
        await mirror.restart();
        upstream.forgetRequests();
        const file = mirror.blobFile(manifest.digest);
        await harm(file, join(mirror.root, "outside"));
        const got = await mirror.get(path);
        assert.deepEqual([got.status, got.sha256], [200, manifest.digest]);
        assert.equal(upstream.count({ method: "GET" }), 1);
        await mirror.restart();
        const hit = await mirror.get(TAG_PATH);
        assert.equal(hit.sha256, manifest.digest);
        await rm(join(mirror.root, "outside"), { force: true });
      }
    });
  }

  void it("of a manifest is restored from memory after a hit if it is missing, also for the next start", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const { manifest } = IMAGE;
    await rm(mirror.blobFile(manifest.digest));
    assert.match(cacheStatusOf(await mirror.get(TAG_PATH)) ?? "", /^hit/);
    await mirror.restart({ offline: true });
    await pullImage(mirror, "a", "v");
    assert.equal(upstream.count(), 0);
  });

  void it("of a manifest with a flipped byte is found by its digest and fetched again", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await mirror.restart();
    const { manifest } = IMAGE;
    const bytes = Buffer.from(manifest.bytes);
    bytes[10] = (bytes[10] ?? 0) ^ 1;
    await writeFile(mirror.blobFile(manifest.digest), bytes);
    const got = await mirror.get(TAG_PATH);
    assert.equal(got.sha256, manifest.digest);
    assert.equal(upstream.count({ method: "GET" }), 1);
    assert.match(cacheStatusOf(await mirror.get(TAG_PATH)) ?? "", /^hit/);
  });

  void it("is 404 if it is empty and the mirror is offline, not an empty 200", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await mirror.restart({ offline: true });
    await truncate(mirror.blobFile(BLOB.digest), 0);
    const got = await mirror.get(BLOB_PATH);
    assert.equal(got.status, 404);
    assert.equal(upstream.count(), 0);
  });

  void it("without its row is reused, and few bytes are fetched", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await mirror.close();
    const database = new Database(join(mirror.root, "index.sqlite"));
    database.pragma("foreign_keys = on");
    database.exec("DELETE FROM blobs");
    database.close();
    await mirror.open();
    await pullImage(mirror, "a", "v");
    assert.ok(upstream.bytesSent({ kind: "blob" }) < 10_000);
    upstream.forgetRequests();
    await pullImage(mirror, "a", "v");
    assert.equal(upstream.count(), 0);
  });

  void it("without an index is reused too", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await mirror.close();
    for (const name of await readdir(mirror.root)) {
      if (name.startsWith("index.sqlite")) await rm(join(mirror.root, name));
    }
    await mirror.open();
    await pullImage(mirror, "a", "v");
    assert.ok(upstream.bytesSent({ kind: "blob" }) < 10_000);
  });

  void it("is fetched again if the whole folder of blobs is missing", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await rm(join(mirror.root, "blobs"), { recursive: true });
    await pullImage(mirror, "a", "v");
    upstream.forgetRequests();
    await pullImage(mirror, "a", "v");
    assert.equal(upstream.count(), 0);
  });
});

void describe("an index that accepts no writes", () => {
  void it("delays a pull by a bounded time, and is used again when it accepts writes", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const other = new Database(join(mirror.root, "index.sqlite"));
    releaseAfter(test, () => {
      other.close();
    });
    other.exec("BEGIN IMMEDIATE");
    const [, manifest] = await pullImage(mirror, "a", "v");
    assert.equal(
      manifest && cacheStatusOf(manifest),
      "fwd=miss; fwd-status=200",
    );
    const referrers = await mirror.get(
      `/v2/a/referrers/${IMAGE.manifest.digest}`,
    );
    assert.equal(referrers.status, 200);
    assert.equal((await mirror.get("/v2/a/tags/list")).status, 200);
    other.exec("COMMIT");
    // A failed storage is not used for a while.
    mirror.clock.advance(5_000);
    await pullImage(mirror, "a", "v");
    upstream.forgetRequests();
    await pullImage(mirror, "a", "v");
    assert.equal(upstream.count(), 0);
  });
});

void describe("an index that another process has locked permanently", () => {
  void it("does not fail pulls of cached images, of image indexes, and of tags that moved", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const moved = buildImage({ seed: "moved", layers: [BLOB, 400] });
    const multi = buildMultiArch({ seed: "locked" });
    upstream.content.addImage("a", IMAGE, "v");
    upstream.content.addIndex("b", multi, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    await pullImage(mirror, "a", "v");
    const other = new Database(join(mirror.root, "index.sqlite"));
    releaseAfter(test, () => {
      other.close();
    });
    other.exec("BEGIN IMMEDIATE");
    upstream.forgetRequests();
    await pullImage(mirror, "a", "v");
    assert.equal(upstream.count(), 0);
    const list = await mirror.get("/v2/b/manifests/v");
    assert.equal(list.sha256, multi.manifest.digest);
    for (const one of multi.images) {
      await pullImage(mirror, "b", one.manifest.digest);
    }
    // The wait for the lock has timed out by now; a cached tag would be stale instead.
    upstream.content.addImage("a", moved, "v");
    mirror.clock.advance(YEAR_MS);
    const [, manifest] = await pullImage(mirror, "a", "v");
    assert.equal(manifest?.sha256, moved.manifest.digest);
  });
});

void describe("a storage that accepts no writes", () => {
  void it("passes the bytes of a pull through, and stores none", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    await mirror.loseStorage();
    for (let i = 1; i <= 2; i++) {
      const answers = await pullImage(mirror, "a", "v");
      for (const answer of answers.slice(1)) {
        assert.equal(cacheStatusOf(answer), "fwd=miss; fwd-status=200");
      }
      assert.equal(upstream.count({ kind: "blob" }), 2 * i);
    }
  });
});
