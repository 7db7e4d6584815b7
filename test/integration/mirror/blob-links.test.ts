import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import Database from "better-sqlite3";
import { Secret, type UpstreamConfig } from "../../../src/config/config.ts";
import { releaseAfter } from "../../support/after-test.ts";
import { Barrier } from "../../support/barrier.ts";
import { buildImage, seededBlob } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  errorCode,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const IMAGE = buildImage({ seed: "links" });
const BLOB = seededBlob("private", 300_000);
const OWN = `/v2/own/blobs/${BLOB.digest}`;
const OTHER = `/v2/other/blobs/${BLOB.digest}`;
const CREDENTIALS: Partial<UpstreamConfig> = {
  credentials: [{ username: "u", password: new Secret("p") }],
};

/** `own` has the image and the blob, and the cache has both; `other` has nothing yet. */
async function setUp(
  test: AfterTest,
  overrides: Partial<UpstreamConfig> = {},
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("own", IMAGE, "v");
  upstream.content.addBlob("own", BLOB);
  const mirror = await startMirror(test, [upstreamOf(upstream, overrides)]);
  await pullImage(mirror, "own", "v");
  assert.equal((await mirror.get(OWN)).sha256, BLOB.digest);
  await mirror.settled();
  upstream.forgetRequests();
  return { upstream, mirror };
}

function asked(upstream: ScriptedUpstream): string[] {
  return upstream
    .requests()
    .map(({ method, kind, repository }) => `${method} ${kind} ${repository}`);
}

void describe("a blob that another repository has stored", () => {
  void it("is linked after one HEAD without a download, and is a hit afterwards", async (test) => {
    const { upstream, mirror } = await setUp(test);
    upstream.content.addBlob("other", BLOB);
    for (let i = 0; i < 3; i++) {
      const got = await mirror.get(OTHER);
      assert.deepEqual([got.status, got.sha256], [200, BLOB.digest]);
      assert.equal(cacheStatusOf(got), "hit");
    }
    assert.deepEqual(asked(upstream), ["HEAD blob other"]);
  });

  void it("is refused for every method and range if the upstream responds 404, and remembered as absent", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const etag = `"${BLOB.digest}"`;
    for (const [method, headers] of [
      ["GET", {}],
      ["HEAD", {}],
      ["GET", { Range: "bytes=0-0" }],
      ["GET", { "If-None-Match": etag }],
      ["HEAD", { "If-None-Match": "*" }],
    ] as const) {
      const got = await mirror.start(OTHER, { method, headers }).response;
      assert.equal(got.status, 404);
      if (method === "GET") assert.equal(errorCode(got), "BLOB_UNKNOWN");
    }
    assert.deepEqual(asked(upstream), ["HEAD blob other"]);
    mirror.clock.advance(30_000);
    upstream.content.addBlob("other", BLOB);
    assert.equal((await mirror.get(OTHER)).sha256, BLOB.digest);
  });

  void it("is refused while the upstream is down", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await upstream.stop();
    for (const status of [502, 503]) {
      const got = await mirror.get(OTHER);
      assert.deepEqual([got.status, errorCode(got)], [status, "UNAVAILABLE"]);
    }
    await mirror.restart({ offline: true });
    assert.equal((await mirror.get(OTHER)).status, 404);
    assert.equal((await mirror.get(OWN)).status, 200);
  });

  for (const status of [400, 401, 403, 405, 406, 500, 504]) {
    void it(`is checked by a GET that ends after its headers if HEAD is answered ${status}`, async (test) => {
      const { upstream, mirror } = await setUp(test);
      upstream.content.addBlob("other", BLOB);
      upstream.when({ kind: "blob", method: "HEAD" }, { status });
      const barrier = new Barrier();
      upstream.when({ kind: "blob" }, { hold: { at: 10, barrier } });
      const got = await mirror.get(OTHER);
      assert.equal(got.sha256, BLOB.digest);
      assert.equal(upstream.bytesSent({ kind: "blob" }), 10);
    });
  }

  for (const [name, overrides, requests] of [
    ["sends no request without credentials", {}, 0],
    ["sends one HEAD with credentials", CREDENTIALS, 1],
  ] as const) {
    void it(`and that a manifest of this one names ${name}`, async (test) => {
      const { upstream, mirror } = await setUp(test, overrides);
      upstream.content.addImage("other", IMAGE, "v");
      await mirror.get("/v2/other/manifests/v");
      upstream.forgetRequests();
      for (const blob of IMAGE.blobs) {
        upstream.forgetRequests();
        const got = await mirror.get(`/v2/other/blobs/${blob.digest}`);
        assert.equal(got.sha256, blob.digest);
        assert.equal(upstream.count({ method: "HEAD" }), requests);
        assert.equal(upstream.count(), requests);
      }
    });
  }

  void it("is refused with credentials if the upstream responds 404, although a manifest names it", async (test) => {
    const { upstream, mirror } = await setUp(test, CREDENTIALS);
    upstream.content.addManifest("other", IMAGE.manifest, "v");
    await mirror.get("/v2/other/manifests/v");
    const got = await mirror.get(`/v2/other/blobs/${IMAGE.config.digest}`);
    assert.deepEqual([got.status, errorCode(got)], [404, "BLOB_UNKNOWN"]);
  });

  void it("is served after the check even if the index accepts no writes", async (test) => {
    const { upstream, mirror } = await setUp(test);
    upstream.content.addImage("other", IMAGE, "v");
    upstream.content.addBlob("other", BLOB);
    const busy = new Database(join(mirror.root, "index.sqlite"));
    releaseAfter(test, () => {
      busy.close();
    });
    busy.exec("BEGIN IMMEDIATE");
    for (const path of [
      OTHER,
      `/v2/other/manifests/${IMAGE.manifest.digest}`,
      "/v2/other/manifests/v",
    ]) {
      assert.equal((await mirror.get(path)).status, 200, path);
    }
  });

  void it("from another upstream is fetched from the requested one", async (test) => {
    const first = await ScriptedUpstream.start(test);
    const second = await ScriptedUpstream.start(test);
    first.content.addBlob("a", BLOB);
    const mirror = await startMirror(test, [
      upstreamOf(first),
      upstreamOf(second, { name: "second.example", isDefault: false }),
    ]);
    await mirror.get(`/v2/a/blobs/${BLOB.digest}`);
    await mirror.settled();
    const path = `/v2/second.example/a/blobs/${BLOB.digest}`;
    assert.equal((await mirror.get(path)).status, 404);
    assert.deepEqual(asked(second), ["GET blob a"]);
    second.content.addBlob("a", BLOB);
    mirror.clock.advance(30_000);
    assert.equal((await mirror.get(path)).sha256, BLOB.digest);
    assert.equal(second.bytesSent({ status: 200 }), BLOB.sizeBytes);
  });
});

void describe("a manifest that another repository has stored", () => {
  const path = `/v2/other/manifests/${IMAGE.manifest.digest}`;

  void it("is linked after one HEAD, and is a hit afterwards", async (test) => {
    const { upstream, mirror } = await setUp(test);
    upstream.content.addManifest("other", IMAGE.manifest);
    for (let i = 0; i < 3; i++) {
      assert.equal(cacheStatusOf(await mirror.get(path)), "hit");
    }
    assert.deepEqual(asked(upstream), ["HEAD manifest other"]);
  });

  void it("is refused if the upstream responds 404, also as a blob", async (test) => {
    const { upstream, mirror } = await setUp(test);
    for (let i = 0; i < 3; i++) {
      const got = await mirror.get(path);
      assert.deepEqual([got.status, errorCode(got)], [404, "MANIFEST_UNKNOWN"]);
      const blob = await mirror.get(path.replace("manifests", "blobs"));
      assert.deepEqual([blob.status, errorCode(blob)], [404, "BLOB_UNKNOWN"]);
    }
    assert.deepEqual(asked(upstream), [
      "HEAD manifest other",
      "HEAD blob other",
    ]);
  });

  for (const status of [400, 403, 405, 406, 500, 504]) {
    void it(`is fetched if HEAD is answered ${status}`, async (test) => {
      const { upstream, mirror } = await setUp(test);
      upstream.content.addManifest("other", IMAGE.manifest);
      upstream.when({ method: "HEAD" }, { status });
      assert.equal((await mirror.get(path)).sha256, IMAGE.manifest.digest);
      assert.equal(cacheStatusOf(await mirror.get(path)), "hit");
      assert.deepEqual(
        [...new Set(asked(upstream))],
        ["HEAD manifest other", "GET manifest other"],
      );
    });
  }

  void it("is linked by a cold tag that resolves to it, with one GET of the tag", async (test) => {
    const { upstream, mirror } = await setUp(test);
    upstream.content.addManifest("other", IMAGE.manifest, "v");
    const got = await mirror.get("/v2/other/manifests/v");
    assert.equal(got.sha256, IMAGE.manifest.digest);
    assert.equal(cacheStatusOf(await mirror.get(path)), "hit");
    assert.deepEqual(asked(upstream), ["GET manifest other"]);
  });
});

void describe("a blob that another repository is fetching", () => {
  const fresh = seededBlob("running", 400_000);
  const own = `/v2/own/blobs/${fresh.digest}`;
  const other = `/v2/other/blobs/${fresh.digest}`;

  void it("is joined after one HEAD, with one GET in total, and linked once it is stored", async (test) => {
    const { upstream, mirror } = await setUp(test);
    upstream.content.addBlob("own", fresh);
    upstream.content.addBlob("other", fresh);
    const barrier = new Barrier();
    upstream.when({ method: "GET" }, { hold: { at: 200_000, barrier } });
    const first = mirror.start(own);
    await first.received(100_000);
    const joined = mirror.start(other);
    await joined.received(100_000);
    barrier.release();
    assert.equal((await first.response).sha256, fresh.digest);
    const got = await joined.response;
    assert.equal(got.sha256, fresh.digest);
    assert.equal(cacheStatusOf(got), "fwd=miss; collapsed");
    await mirror.settled();
    assert.equal(cacheStatusOf(await mirror.get(other)), "hit");
    assert.deepEqual(asked(upstream), ["GET blob own", "HEAD blob other"]);
  });

  void it("is refused if the upstream responds 404 for this one", async (test) => {
    const { upstream, mirror } = await setUp(test);
    upstream.content.addBlob("own", fresh);
    const barrier = new Barrier();
    upstream.when({ method: "GET" }, { hold: { at: 200_000, barrier } });
    const first = mirror.start(own);
    await first.received(100_000);
    for (const headers of [{}, { Range: "bytes=0-9" }]) {
      const got = await mirror.get(other, headers);
      assert.deepEqual([got.status, errorCode(got)], [404, "BLOB_UNKNOWN"]);
    }
    barrier.release();
    assert.equal((await first.response).sha256, fresh.digest);
    assert.deepEqual(asked(upstream), ["GET blob own", "HEAD blob other"]);
  });
});
