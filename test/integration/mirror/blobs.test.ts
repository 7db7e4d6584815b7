import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { dirname } from "node:path";
import { describe, it } from "node:test";
import { Barrier } from "../../support/barrier.ts";
import {
  buildImage,
  bytesBlob,
  descriptorJson,
  manifestOf,
  seededBlob,
  type TestBlob,
} from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  errorCode,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import type { RawResponse } from "../../support/raw-client.ts";
import {
  ScriptedUpstream,
  type ScriptedUpstreamOptions,
} from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const IMAGE = buildImage({ seed: "blobs", layers: [300_000] });
const BLOB = seededBlob("blob", 200_000);
const EMPTY = bytesBlob("");

async function setUp(
  test: AfterTest,
  options: ScriptedUpstreamOptions = {},
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test, options);
  upstream.content.addImage("a", IMAGE, "v");
  for (const blob of [BLOB, EMPTY]) upstream.content.addBlob("a", blob);
  const mirror = await startMirror(test, [upstreamOf(upstream)]);
  return { upstream, mirror };
}

function pathOf(blob: TestBlob): string {
  return `/v2/a/blobs/${blob.digest}`;
}

function assertIsBlob(response: RawResponse, blob: TestBlob): void {
  const { headers } = response;
  assert.deepEqual([response.status, response.end], [200, "complete"]);
  assert.equal(headers["docker-content-digest"], blob.digest);
  assert.equal(headers["etag"], `"${blob.digest}"`);
  assert.equal(headers["accept-ranges"], "bytes");
  assert.equal(headers["content-type"], "application/octet-stream");
  assert.equal(headers["content-length"], String(blob.sizeBytes));
  assert.equal(headers["content-encoding"], undefined);
}

void describe("a blob", () => {
  void it("is fetched by one GET and no HEAD, and is a hit with the same headers afterwards", async (test) => {
    const { upstream, mirror } = await setUp(test, { redirectBlobs: {} });
    const miss = await mirror.get(pathOf(BLOB));
    assertIsBlob(miss, BLOB);
    assert.equal(miss.sha256, BLOB.digest);
    assert.equal(cacheStatusOf(miss), "fwd=miss; fwd-status=200; stored");
    assert.equal(miss.headers["age"], undefined);
    await mirror.settled();
    mirror.clock.advance(75_000);
    const hit = await mirror.get(pathOf(BLOB));
    assertIsBlob(hit, BLOB);
    assert.equal(hit.sha256, BLOB.digest);
    assert.equal(cacheStatusOf(hit), "hit");
    assert.equal(hit.headers["age"], "75");
    const head = await mirror.head(pathOf(BLOB));
    assertIsBlob(head, BLOB);
    assert.equal(head.headers["age"], "75");
    assert.deepEqual(
      upstream.requests().map(({ kind, method }) => [kind, method]),
      [
        ["blob", "GET"],
        ["cdn", "GET"],
      ],
    );
    for (const { headers } of upstream.requests()) {
      assert.equal(headers["accept-encoding"], "identity");
    }
  });

  void it("of zero bytes is served and stored like others", async (test) => {
    const { upstream, mirror } = await setUp(test);
    for (let i = 0; i < 2; i++) {
      const got = await mirror.get(pathOf(EMPTY));
      assertIsBlob(got, EMPTY);
      assert.equal(got.bodyBytes, 0);
      await mirror.settled();
    }
    assertIsBlob(await mirror.head(pathOf(EMPTY)), EMPTY);
    const part = await mirror.get(pathOf(EMPTY), { Range: "bytes=0-" });
    assert.deepEqual(
      [part.status, part.headers["content-range"]],
      [416, "bytes */0"],
    );
    assert.equal(upstream.count(), 1);
  });

  void it("is answered 304 to an If-None-Match that names it, without being fetched", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const headers = { "If-None-Match": `"${BLOB.digest}"` };
    for (const method of ["GET", "HEAD"]) {
      const got = await mirror.start(pathOf(BLOB), { method, headers })
        .response;
      assert.deepEqual([got.status, got.bodyBytes], [304, 0]);
      assert.equal(got.headers["etag"], `"${BLOB.digest}"`);
    }
    assert.equal(upstream.count({ method: "GET" }), 0);
    const none = seededBlob("none", 10);
    const gone = await mirror.get(pathOf(none), {
      "If-None-Match": `"${none.digest}"`,
    });
    assert.deepEqual([gone.status, errorCode(gone)], [404, "BLOB_UNKNOWN"]);
  });

  void it("that the upstream does not have is 404, also a foreign layer", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const layer = seededBlob("foreign", 5_000, {
      mediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    });
    const { mediaType } = IMAGE.manifest;
    const urls = [`${upstream.origin}/foreign`];
    const manifest = manifestOf(
      {
        schemaVersion: 2,
        mediaType,
        config: descriptorJson(IMAGE.config),
        layers: [{ ...descriptorJson(layer), urls }],
      },
      mediaType,
    );
    upstream.content.addManifest("a", manifest, "foreign");
    const got = await mirror.get("/v2/a/manifests/foreign");
    assert.deepEqual(got.body, manifest.bytes);
    const gone = await mirror.get(pathOf(layer));
    assert.deepEqual([gone.status, errorCode(gone)], [404, "BLOB_UNKNOWN"]);
    await mirror.get(pathOf(IMAGE.config));
    await mirror.settled();
    assert.equal(upstream.count({ kind: "other" }), 0);
    // The image is complete without it.
    await upstream.stop();
    mirror.clock.advance(600_000);
    const stale = await mirror.get("/v2/a/manifests/foreign");
    assert.equal(stale.sha256, manifest.digest);
  });

  for (const framing of ["chunked", "eof"] as const) {
    void it(`of unknown size (${framing}) is sent chunked, and to HTTP/1.0 with its length once it is verified`, async (test) => {
      const { upstream, mirror } = await setUp(test);
      upstream.when({ kind: "blob", method: "GET" }, { framing });
      const old = await mirror.raw(
        `GET ${pathOf(BLOB)} HTTP/1.0\r\nHost: m\r\n\r\n`,
      );
      assertIsBlob(old, BLOB);
      assert.equal(old.sha256, BLOB.digest);
      const fresh = seededBlob(`size ${framing}`, 150_000);
      upstream.content.addBlob("a", fresh);
      const got = await mirror.get(pathOf(fresh));
      assert.deepEqual([got.status, got.end], [200, "complete"]);
      assert.equal(got.sha256, fresh.digest);
      assert.equal(got.headers["transfer-encoding"], "chunked");
      assert.equal(got.headers["content-length"], undefined);
      await mirror.settled();
      assertIsBlob(await mirror.get(pathOf(fresh)), fresh);
      const now = await mirror.raw(
        `GET ${pathOf(fresh)} HTTP/1.0\r\nHost: m\r\n\r\n`,
      );
      assert.equal(now.sha256, fresh.digest);
    });

    void it(`of unknown size (${framing}) has the length of its descriptor`, async (test) => {
      const { upstream, mirror } = await setUp(test);
      upstream.when({ kind: "blob", method: "GET" }, { framing });
      await mirror.get("/v2/a/manifests/v");
      const [layer] = IMAGE.layers;
      assert.ok(layer);
      const got = await mirror.get(pathOf(layer));
      assertIsBlob(got, layer);
      assert.equal(got.sha256, layer.digest);
    });
  }

  void it("whose bytes are wrong is never complete, and is not stored", async (test) => {
    const { upstream, mirror } = await setUp(test);
    for (const flip of ["first", "middle", "last"] as const) {
      for (const framing of ["content-length", "chunked"] as const) {
        upstream.clearRules();
        upstream.when({ kind: "blob" }, { flip, framing });
        const got = await mirror.get(pathOf(BLOB));
        assert.deepEqual([got.status, got.end], [200, "fin"]);
        assert.ok(got.bodyBytes <= BLOB.sizeBytes - 65_536);
        await mirror.settled();
      }
    }
    assert.equal(await mirror.metric("entrepot_digest_mismatches_total"), 6);
    assert.deepEqual(await readdir(dirname(mirror.blobFile(BLOB.digest))), []);
    const part = await mirror.get(pathOf(BLOB), { Range: "bytes=0-9" });
    assert.deepEqual([part.status, errorCode(part)], [502, "UNAVAILABLE"]);
    upstream.clearRules();
    const whole = await mirror.get(pathOf(BLOB));
    assert.equal(whole.sha256, BLOB.digest);
  });
});

void describe("HEAD of a cold blob", () => {
  void it("sends no upstream request if a manifest of the repository names it", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await mirror.get("/v2/a/manifests/v");
    upstream.forgetRequests();
    for (const blob of IMAGE.blobs) {
      assertIsBlob(await mirror.head(pathOf(blob)), blob);
    }
    assert.equal(upstream.count(), 0);
  });

  void it("is an error while the upstream is down, even if a manifest names the blob", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await mirror.get("/v2/a/manifests/v");
    await upstream.stop();
    assert.equal((await mirror.get(pathOf(BLOB))).status, 502);
    const head = await mirror.head(pathOf(IMAGE.config));
    assert.equal(head.status, 503);
  });

  void it("sends one HEAD upstream and starts no download if no manifest names it", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const head = await mirror.head(pathOf(BLOB));
    assertIsBlob(head, BLOB);
    assert.equal(cacheStatusOf(head), "fwd=miss; fwd-status=200");
    assert.deepEqual(
      upstream.requests().map(({ kind, method }) => [kind, method]),
      [["blob", "HEAD"]],
    );
  });

  for (const [name, fault] of [
    ["is refused with 401", { status: 401 }],
    ["is not allowed", { status: 405 }],
    ["states no length", { framing: "chunked" }],
  ] as const) {
    void it(`sends a GET that ends after its headers if the upstream's HEAD ${name}`, async (test) => {
      const { upstream, mirror } = await setUp(test);
      upstream.when({ kind: "blob", method: "HEAD" }, fault);
      const barrier = new Barrier();
      upstream.when({ method: "GET" }, { hold: { at: 1_000, barrier } });
      assertIsBlob(await mirror.head(pathOf(BLOB)), BLOB);
      const gets = { kind: "blob", method: "GET" } as const;
      await upstream.ended(gets, 1);
      assert.equal(upstream.bytesSent(gets), 1_000);
      assert.equal(upstream.count(gets), 1);
      barrier.release();
      const got = await mirror.get(pathOf(BLOB));
      assert.equal(got.sha256, BLOB.digest);
    });
  }

  void it("is 404 if the upstream does not have it, and remembers that", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const none = seededBlob("none", 10);
    for (const status of ["fwd=miss; fwd-status=404", "hit; detail=negative"]) {
      const head = await mirror.head(pathOf(none));
      assert.equal(head.status, 404);
      assert.equal(cacheStatusOf(head), status);
    }
    assert.equal(upstream.count(), 1);
  });
});
