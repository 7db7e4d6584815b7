import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { dirname } from "node:path";
import { describe, it } from "node:test";
import {
  buildImage,
  buildMultiArch,
  bytesBlob,
  descriptorJson,
  manifestOf,
} from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  errorCode,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { Misbehaviour } from "../../support/wire-answer.ts";

const IMAGE = buildImage({ seed: "faulty" });
const OTHER = buildImage({ seed: "other" });
const NEXT = buildImage({ seed: "next" });
const { manifest: MANIFEST } = IMAGE;
const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const SCHEMA1_SIGNED =
  "application/vnd.docker.distribution.manifest.v1+prettyjws";
const TAG_PATH = "/v2/a/manifests/v";
const DIGEST_PATH = `/v2/a/manifests/${MANIFEST.digest}`;
const PORTAL: Misbehaviour = {
  body: "<html>log in</html>",
  headers: { "content-type": "text/html", "docker-content-digest": undefined },
};

async function storedFiles(mirror: TestMirror): Promise<readonly string[]> {
  return readdir(dirname(mirror.blobFile(MANIFEST.digest)));
}

void describe("a manifest's digest", () => {
  void it("is computed if the upstream sends none, on HEAD and GET", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    upstream.when(
      { kind: "manifest" },
      { headers: { "docker-content-digest": undefined, etag: '"x"' } },
    );
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const head = await mirror.head(TAG_PATH);
    assert.equal(head.headers["docker-content-digest"], MANIFEST.digest);
    assert.equal(head.headers["etag"], `"${MANIFEST.digest}"`);
    const got = await mirror.get(DIGEST_PATH);
    assert.equal(got.sha256, MANIFEST.digest);
    assert.equal(upstream.count({ method: "GET" }), 1);
    mirror.clock.advance(600_000);
    const again = await mirror.get(TAG_PATH);
    assert.equal(
      cacheStatusOf(again),
      "fwd=stale; fwd-status=200; detail=revalidated",
    );
  });

  void it("is that of the body if the upstream does not allow HEAD", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    upstream.when({ kind: "manifest", method: "HEAD" }, { status: 405 });
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const head = await mirror.head(TAG_PATH);
    assert.equal(head.headers["docker-content-digest"], MANIFEST.digest);
    assert.equal(head.headers["content-length"], String(MANIFEST.sizeBytes));
  });

  void it("and length are those of the stored body if the upstream's HEAD differs", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    upstream.when(
      { kind: "manifest", method: "HEAD" },
      { contentLength: 7, headers: { "content-type": "text/plain" } },
    );
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    for (const head of [
      await mirror.head(TAG_PATH),
      await mirror.get(TAG_PATH),
    ]) {
      assert.equal(head.headers["content-type"], MANIFEST.mediaType);
      assert.equal(head.headers["content-length"], String(MANIFEST.sizeBytes));
    }
  });

  void it("is fetched by tag if the digest of the HEAD is gone", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", NEXT, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    await mirror.get(TAG_PATH);
    mirror.clock.advance(600_000);
    upstream.forgetRequests();
    upstream.content.addImage("a", IMAGE, "v");
    upstream.when(
      { kind: "manifest", method: "HEAD" },
      { headers: { "docker-content-digest": OTHER.manifest.digest } },
      { times: 1 },
    );
    const got = await mirror.get(TAG_PATH);
    assert.deepEqual([got.status, got.sha256], [200, MANIFEST.digest]);
    assert.deepEqual(
      upstream.requests().map(({ method, reference }) => [method, reference]),
      [
        ["HEAD", "v"],
        ["GET", OTHER.manifest.digest],
        ["GET", "v"],
      ],
    );
  });

  void it("that only HEAD states creates no tag and leaves the known tag unchanged", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const lie = { headers: { "docker-content-digest": OTHER.manifest.digest } };
    upstream.when({ kind: "manifest", method: "HEAD" }, lie);
    upstream.when(
      { kind: "manifest", reference: OTHER.manifest.digest },
      { status: 200, body: MANIFEST.bytes, ...lie },
    );
    assert.equal((await mirror.get(TAG_PATH)).sha256, MANIFEST.digest);
    mirror.clock.advance(600_000);
    // Its blobs are not cached yet, so the old manifest is not served instead.
    const lied = await mirror.get(TAG_PATH);
    assert.deepEqual([lied.status, errorCode(lied)], [502, "UNAVAILABLE"]);
    assert.equal((await storedFiles(mirror)).length, 1);
    upstream.clearRules();
    for (const blob of IMAGE.blobs)
      await mirror.get(`/v2/a/blobs/${blob.digest}`);
    await mirror.settled();
    await mirror.get(TAG_PATH);
    mirror.clock.advance(600_000);
    upstream.when({ kind: "manifest", method: "HEAD" }, lie);
    upstream.when(
      { kind: "manifest", reference: OTHER.manifest.digest },
      { status: 200, body: MANIFEST.bytes, ...lie },
    );
    const stale = await mirror.get(TAG_PATH);
    assert.deepEqual([stale.status, stale.sha256], [200, MANIFEST.digest]);
    assert.equal(cacheStatusOf(stale), "fwd=stale; detail=stale");
  });
});

void describe("an upstream's response that is not a valid manifest", () => {
  const twoShapes = manifestOf(
    {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: descriptorJson(IMAGE.config),
      layers: [],
      manifests: [],
    },
    OCI_MANIFEST,
  );
  const twice = manifestOf(
    `{"schemaVersion":2,"mediaType":"${OCI_MANIFEST}","layers":[],"Layers":[],"config":${JSON.stringify(descriptorJson(IMAGE.config))}}`,
    OCI_MANIFEST,
  );
  const deep = manifestOf(
    `{"schemaVersion":2,"annotations":${"[".repeat(100_000)}${"]".repeat(100_000)}}`,
    OCI_MANIFEST,
  );
  const otherType = manifestOf(
    {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: descriptorJson(IMAGE.config),
      layers: [],
    },
    "application/vnd.docker.distribution.manifest.v2+json",
  );
  for (const [name, manifest] of [
    ["is both an image and an index", twoShapes],
    ["has a key twice", twice],
    ["is too deep", deep],
    ["is of another type than its header says", otherType],
  ] as const) {
    void it(`is refused if it ${name}`, async (test) => {
      const upstream = await ScriptedUpstream.start(test);
      upstream.content.addManifest("a", manifest, "v");
      const mirror = await startMirror(test, [upstreamOf(upstream)]);
      for (const reference of ["v", manifest.digest]) {
        const got = await mirror.get(`/v2/a/manifests/${reference}`);
        assert.equal(got.status, 502);
        assert.equal(errorCode(got), "MANIFEST_INVALID");
      }
      assert.deepEqual(await storedFiles(mirror), []);
    });
  }

  for (const [name, bytes, status] of [
    ["one byte over 4 MiB", 4_194_305, 502],
    ["exactly 4 MiB", 4_194_304, 200],
  ] as const) {
    void it(`is answered ${status} if it is ${name}`, async (test) => {
      const upstream = await ScriptedUpstream.start(test);
      const head = `{"schemaVersion":2,"mediaType":"${OCI_MANIFEST}","config":${JSON.stringify(descriptorJson(IMAGE.config))},"layers":[]`;
      const manifest = manifestOf(
        `${head}${" ".repeat(bytes - head.length - 1)}}`,
        OCI_MANIFEST,
      );
      assert.equal(manifest.sizeBytes, bytes);
      upstream.content.addManifest("a", manifest, "v");
      for (const framing of ["content-length", "chunked"] as const) {
        upstream.clearRules();
        upstream.when({ method: "GET" }, { framing });
        const mirror = await startMirror(test, [upstreamOf(upstream)]);
        const got = await mirror.get(TAG_PATH);
        assert.equal(got.status, status);
        if (status === 502) assert.equal(errorCode(got), "MANIFEST_INVALID");
        else assert.equal(got.sha256, manifest.digest);
        assert.equal(
          (await storedFiles(mirror)).length,
          status === 200 ? 1 : 0,
        );
      }
    });
  }

  for (const [name, fault] of [
    ["a captive portal's page", PORTAL],
    ["empty", { body: "", headers: { "docker-content-digest": undefined } }],
    [
      "JSON that is not a manifest",
      {
        body: '{"error":"log in"}',
        headers: {
          "content-type": "application/json",
          "docker-content-digest": undefined,
        },
      },
    ],
    ["a flipped byte", { flip: "middle" }],
    ["cut short", { cut: { atByte: 20, by: "fin" } }],
  ] satisfies readonly (readonly [string, Misbehaviour])[]) {
    void it(`is refused if it is ${name}`, async (test) => {
      const upstream = await ScriptedUpstream.start(test);
      upstream.content.addImage("a", IMAGE, "v");
      upstream.when({ kind: "manifest" }, fault);
      const mirror = await startMirror(test, [upstreamOf(upstream)]);
      for (const path of [DIGEST_PATH, TAG_PATH]) {
        for (const method of ["GET", "HEAD"]) {
          const got = await mirror.start(path, { method }).response;
          // Three faults in a row open the breaker; then its probe is due.
          mirror.clock.advance(300_000);
          assert.equal(got.status, 502);
          assert.notEqual(got.headers["content-length"], "0");
          assert.equal(got.headers["content-type"], "application/json");
          assert.match(
            got.headers["cache-status"] ?? "",
            /^entrepot; fwd=miss/,
          );
        }
      }
      assert.deepEqual(await storedFiles(mirror), []);
      upstream.clearRules();
      assert.equal((await mirror.get(TAG_PATH)).sha256, MANIFEST.digest);
    });
  }

  void it("is refused by tag and by digest if the bytes do not match", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    upstream.when(
      { kind: "manifest", method: "GET" },
      { body: OTHER.manifest.bytes },
    );
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    for (const path of [TAG_PATH, DIGEST_PATH]) {
      const got = await mirror.get(path);
      assert.deepEqual([got.status, errorCode(got)], [502, "UNAVAILABLE"]);
    }
    assert.deepEqual(await storedFiles(mirror), []);
    assert.equal(await mirror.metric("entrepot_digest_mismatches_total"), 2);
  });

  for (const [name, path, isHeadOffered] of [
    ["by digest", DIGEST_PATH, true],
    ["by tag", TAG_PATH, true],
    ["by tag without a HEAD", TAG_PATH, false],
  ] as const) {
    void it(`is fetched from the next endpoint if the bytes do not match, ${name}`, async (test) => {
      const [wrong, right] = [
        await ScriptedUpstream.start(test),
        await ScriptedUpstream.start(test),
      ];
      for (const upstream of [wrong, right]) {
        upstream.content.addImage("a", IMAGE, "v");
        if (isHeadOffered) continue;
        upstream.when({ kind: "manifest", method: "HEAD" }, { status: 405 });
      }
      wrong.when(
        { kind: "manifest", method: "GET" },
        { body: OTHER.manifest.bytes },
      );
      const mirror = await startMirror(test, [
        upstreamOf(wrong, { endpoints: [wrong.origin, right.origin] }),
      ]);
      const got = await mirror.get(path);
      assert.deepEqual([got.status, got.sha256], [200, MANIFEST.digest]);
      assert.equal(cacheStatusOf(got), "fwd=miss; fwd-status=200; stored");
      assert.equal((await storedFiles(mirror)).length, 1);
      for (const upstream of [wrong, right]) {
        assert.equal(upstream.count({ method: "GET" }), 1);
      }
      assert.equal(await mirror.metric("entrepot_digest_mismatches_total"), 1);
    });
  }
});

void describe("a schema 1 manifest", () => {
  const schema1 = manifestOf(
    {
      schemaVersion: 1,
      name: "a",
      tag: "v",
      fsLayers: [{ blobSum: IMAGE.config.digest }],
      history: [],
      signatures: [{ protected: "x" }],
    },
    SCHEMA1_SIGNED,
  );
  const payloadDigest = bytesBlob("the payload").digest;
  for (const [name, headers] of [
    ["as its type says", { "docker-content-digest": payloadDigest }],
    ["without a digest", { "docker-content-digest": undefined }],
    [
      "under another type, with a digest that does not match its bytes",
      {
        "docker-content-digest": payloadDigest,
        "content-type": "application/json",
      },
    ],
  ] as const) {
    void it(`is passed through by tag and never stored, ${name}`, async (test) => {
      const upstream = await ScriptedUpstream.start(test);
      upstream.content.addManifest("a", schema1, "v");
      upstream.when({ kind: "manifest" }, { headers });
      const mirror = await startMirror(test, [upstreamOf(upstream)]);
      for (let i = 1; i <= 2; i++) {
        const got = await mirror.get(TAG_PATH);
        assert.equal(got.status, 200);
        assert.deepEqual(got.body, schema1.bytes);
        assert.equal(got.headers["content-type"], SCHEMA1_SIGNED);
        assert.equal(
          got.headers["docker-content-digest"],
          headers["docker-content-digest"],
        );
        assert.equal(cacheStatusOf(got), "fwd=miss; fwd-status=200");
      }
      assert.deepEqual(await storedFiles(mirror), []);
    });
  }
});

void describe("a manifest that can't be stored", () => {
  void it("is still served, and Cache-Status does not report it as stored", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const index = buildMultiArch({ seed: "unstored" });
    upstream.content.addIndex("a", index, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    await mirror.loseStorage();
    for (const reference of ["v", index.manifest.digest]) {
      const got = await mirror.get(`/v2/a/manifests/${reference}`);
      assert.deepEqual([got.status, got.sha256], [200, index.manifest.digest]);
      assert.equal(cacheStatusOf(got), "fwd=miss; fwd-status=200");
    }
  });
});
