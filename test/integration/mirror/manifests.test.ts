import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  buildImage,
  buildMultiArch,
  bytesBlob,
  manifestOf,
  type TestManifest,
} from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  startMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import type { RawResponse } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const INDEX = buildMultiArch({ seed: "manifests" });
const LIST = buildMultiArch({ seed: "list", format: "docker" });
const OCI = buildImage({ seed: "oci" });
const DOCKER = buildImage({ seed: "docker", format: "docker" });
const SHA512 = buildImage({ seed: "sha512", algorithm: "sha512" });
const OCI_INDEX_TYPE = "application/vnd.oci.image.index.v1+json";

/** The headers that must be equal for hit and miss, HEAD and GET. */
function lastingHeaders(response: RawResponse): Record<string, string> {
  const headers = { ...response.headers } as Record<string, string>;
  for (const name of ["cache-status", "age", "date"]) delete headers[name];
  return headers;
}

function assertIsManifest(response: RawResponse, manifest: TestManifest): void {
  const { headers } = response;
  assert.equal(response.status, 200);
  assert.equal(response.end, "complete");
  assert.equal(headers["content-type"], manifest.mediaType);
  assert.equal(headers["docker-content-digest"], manifest.digest);
  assert.equal(headers["etag"], `"${manifest.digest}"`);
  assert.equal(headers["content-length"], String(manifest.sizeBytes));
  assert.equal(headers["docker-distribution-api-version"], "registry/2.0");
  assert.equal(headers["transfer-encoding"], undefined);
  assert.equal(headers["content-encoding"], undefined);
}

void describe("a manifest", () => {
  const kinds: readonly (readonly [string, TestManifest])[] = [
    ["an OCI index", INDEX.manifest],
    ["a Docker list", LIST.manifest],
    ["an OCI image", OCI.manifest],
    ["a Docker image", DOCKER.manifest],
  ];
  for (const [name, manifest] of kinds) {
    void it(`${name} is served byte for byte, by tag and digest, with the same headers on hit and miss`, async (test) => {
      const upstream = await ScriptedUpstream.start(test);
      upstream.content.addManifest("a/b", manifest, "v");
      for (const reference of ["v", manifest.digest]) {
        const mirror = await startMirror(test, [upstreamOf(upstream)]);
        const path = `/v2/a/b/manifests/${reference}`;
        const miss = await mirror.get(path);
        const hit = await mirror.get(path);
        const head = await mirror.head(path);
        const coldMirror = await startMirror(test, [upstreamOf(upstream)]);
        const coldHead = await coldMirror.head(path);
        for (const one of [miss, hit, head, coldHead]) {
          assertIsManifest(one, manifest);
          assert.deepEqual(lastingHeaders(one), lastingHeaders(miss));
        }
        assert.deepEqual(miss.body, manifest.bytes);
        assert.deepEqual(hit.body, manifest.bytes);
        assert.equal(head.bodyBytes + coldHead.bodyBytes, 0);
        assert.equal(cacheStatusOf(miss), "fwd=miss; fwd-status=200; stored");
        const ttl = reference === "v" ? "; ttl=600" : "";
        assert.equal(cacheStatusOf(hit), `hit${ttl}`);
        assert.equal(cacheStatusOf(head), `hit${ttl}`);
      }
    });
  }

  void it("of sha512 is verified and served under its own digest", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", SHA512, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const { manifest } = SHA512;
    assertIsManifest(await mirror.get("/v2/a/manifests/v"), manifest);
    const path = `/v2/a/manifests/${manifest.digest}`;
    assertIsManifest(await mirror.get(path), manifest);
    assert.equal(upstream.count({ kind: "manifest" }), 1);
    for (const blob of SHA512.blobs) {
      const got = await mirror.get(`/v2/a/blobs/${blob.digest}`);
      assert.deepEqual([got.status, got.end], [200, "complete"]);
      assert.deepEqual(got.body, blob.bytes());
      assert.equal(got.headers["docker-content-digest"], blob.digest);
    }
  });

  void it("has one entry and costs one upstream GET for any Accept header", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addIndex("a", INDEX, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const types = kinds.map(([, manifest]) => manifest.mediaType);
    const accepts = [
      types.join(", "),
      types.toReversed().join(","),
      "*/*",
      "application/vnd.docker.distribution.manifest.v2+json",
      "text/html;q=0.9",
    ];
    for (const accept of accepts) {
      const got = await mirror.get("/v2/a/manifests/v", { Accept: accept });
      assertIsManifest(got, INDEX.manifest);
      assert.deepEqual(got.body, INDEX.manifest.bytes);
    }
    const repeated = await mirror.raw(
      `GET /v2/a/manifests/v HTTP/1.1\r\nHost: m\r\nConnection: close\r\n${types.map((type) => `Accept: ${type}\r\n`).join("")}\r\n`,
    );
    assertIsManifest(repeated, INDEX.manifest);
    const bare = await mirror.raw(
      "GET /v2/a/manifests/v HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n",
    );
    assertIsManifest(bare, INDEX.manifest);
    assert.equal(upstream.count({ kind: "manifest", method: "GET" }), 1);
    assert.equal(upstream.count({ kind: "manifest", method: "HEAD" }), 0);
    const accepted = new Set(
      upstream.requests().map(({ headers }) => headers["accept"]),
    );
    assert.equal(accepted.size, 1);
    for (const { headers } of upstream.requests()) {
      assert.equal(headers["accept-encoding"], "identity");
    }
  });

  void it("answers 304 to an If-None-Match that names it, with its headers", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addIndex("a", INDEX, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const etag = `"${INDEX.manifest.digest}"`;
    const path = "/v2/a/manifests/v";
    for (const header of [etag, `W/${etag}`, `"x", ${etag}`, "*"]) {
      for (const method of ["GET", "HEAD"]) {
        const headers = { "If-None-Match": header };
        const got = await mirror.start(path, { method, headers }).response;
        assert.equal(got.status, 304, header);
        assert.equal(got.bodyBytes, 0);
        assert.equal(got.headers["etag"], etag);
        assert.equal(
          got.headers["docker-content-digest"],
          INDEX.manifest.digest,
        );
        assert.notEqual(got.headers["content-length"], "0");
      }
    }
    for (const header of ['"x"', INDEX.manifest.digest, "W/*"]) {
      const got = await mirror.get(path, { "If-None-Match": header });
      assertIsManifest(got, INDEX.manifest);
    }
    assert.equal(upstream.count({ kind: "manifest", method: "GET" }), 1);
  });

  void it("is stored unchanged if it is an index, and its response waits for no child", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addIndex("a", INDEX, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    await mirror.get("/v2/a/manifests/v");
    assert.equal(upstream.count(), 1);
    const [, second] = INDEX.images;
    assert.ok(second);
    const child = await mirror.get(`/v2/a/manifests/${second.manifest.digest}`);
    assertIsManifest(child, second.manifest);
    assert.equal(upstream.count(), 2);
  });

  void it("requested as a blob keeps its media type, and supports ranges", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addIndex("a", INDEX, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    await mirror.get("/v2/a/manifests/v");
    upstream.forgetRequests();
    const { manifest } = INDEX;
    const path = `/v2/a/blobs/${manifest.digest}`;
    const head = await mirror.head(path);
    const got = await mirror.get(path);
    assert.equal(got.headers["content-type"], OCI_INDEX_TYPE);
    assert.deepEqual(got.body, manifest.bytes);
    assert.deepEqual(lastingHeaders(head), lastingHeaders(got));
    const part = await mirror.get(path, { Range: "bytes=1-5" });
    assert.equal(part.status, 206);
    assert.deepEqual(part.body, manifest.bytes.subarray(1, 6));
    assert.equal(upstream.count(), 0);
  });

  void it("fetched as a blob first is a manifest when it is requested as one", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const { manifest } = OCI;
    upstream.content.addImage("a", OCI, "v");
    upstream.content.addBlob("a", bytesBlob(manifest.bytes));
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const asBlob = await mirror.get(`/v2/a/blobs/${manifest.digest}`);
    assert.deepEqual(asBlob.body, manifest.bytes);
    const path = `/v2/a/manifests/${manifest.digest}`;
    assertIsManifest(await mirror.get(path), manifest);
    upstream.forgetRequests();
    assertIsManifest(await mirror.get(path), manifest);
    const again = await mirror.get(`/v2/a/blobs/${manifest.digest}`);
    assert.equal(again.headers["content-type"], manifest.mediaType);
    assert.equal(upstream.count(), 0);
  });

  void it("that is a blob is found under blobs after manifests answered 404", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const blob = OCI.config;
    upstream.content.addImage("a", OCI, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    // As containerd resolves `name@digest`.
    const none = await mirror.head(`/v2/a/manifests/${blob.digest}`);
    assert.equal(none.status, 404);
    const found = await mirror.head(`/v2/a/blobs/${blob.digest}`);
    assert.equal(found.status, 200);
    assert.equal(found.headers["content-length"], String(blob.sizeBytes));
  });

  void it("of an unknown artifact type is served with that type", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const odd = manifestOf({ hello: 1 }, "application/vnd.example.thing+json");
    upstream.content.addManifest("a", odd, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    assertIsManifest(await mirror.get("/v2/a/manifests/v"), odd);
    assertIsManifest(await mirror.get("/v2/a/manifests/v"), odd);
    assert.equal(upstream.count({ method: "GET" }), 1);
  });
});
