import assert from "node:assert/strict";
import { stat } from "node:fs/promises";
import { describe, it } from "node:test";
import { Secret, type UpstreamConfig } from "../../../src/config/config.ts";
import {
  buildArtifact,
  buildIndex,
  buildImage,
  descriptorJson,
  manifestOf,
  type TestBlob,
  type TestManifest,
} from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  errorCode,
  errorDetail,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import {
  type RecordedRequest,
  ScriptedUpstream,
} from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

/*
 * Two upstreams. The cache has all content of `held`; the tests request the same digests from
 * `other`. They cover each kind of content, each way to request it, and each answer of `other`.
 */
const IMAGE = buildImage({ seed: "two upstreams", layers: [200_000] });
const CHILD = buildImage({ seed: "two upstreams, child", layers: [3_000] });
const INDEX = buildIndex([CHILD]);
const SIGNATURE = buildArtifact({
  seed: "two upstreams, signature",
  artifactType: "application/vnd.example.signature",
  subject: IMAGE.manifest,
});
const [LAYER] = IMAGE.layers;
assert.ok(LAYER);

const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";
const CREDENTIALS: Partial<UpstreamConfig> = {
  credentials: [{ username: "u", password: new Secret("p") }],
};

/** The cached content of `held`, by the path below a repository. */
const HELD: readonly (readonly [
  name: string,
  path: string,
  what: TestManifest | TestBlob,
])[] = [
  ["a manifest", `manifests/${IMAGE.manifest.digest}`, IMAGE.manifest],
  ["an index", `manifests/${INDEX.manifest.digest}`, INDEX.manifest],
  ["a child of an index", `manifests/${CHILD.manifest.digest}`, CHILD.manifest],
  ["a tag", "manifests/v", IMAGE.manifest],
  ["a referrer", `manifests/${SIGNATURE.manifest.digest}`, SIGNATURE.manifest],
  ["a config", `blobs/${IMAGE.config.digest}`, IMAGE.config],
  ["a layer", `blobs/${LAYER.digest}`, LAYER],
  ["a manifest as a blob", `blobs/${IMAGE.manifest.digest}`, IMAGE.manifest],
];

interface Two {
  readonly held: ScriptedUpstream;
  readonly other: ScriptedUpstream;
  readonly mirror: TestMirror;
}

function addAll(upstream: ScriptedUpstream): void {
  const { content } = upstream;
  content.addImage("a", IMAGE, "v");
  content.addIndex("a", INDEX, "i");
  content.addImage("a", SIGNATURE);
  content.addBlob("a", manifestBlob(IMAGE.manifest));
}

function manifestBlob({ bytes, digest, mediaType }: TestManifest): TestBlob {
  return {
    digest,
    mediaType,
    sizeBytes: bytes.length,
    bytes: () => bytes,
    read: (offset, length) => bytes.subarray(offset, offset + length),
  };
}

/** Starts a mirror that has all content of `held` on disk, and its manifests in memory. */
async function setUp(
  test: AfterTest,
  overrides: Partial<UpstreamConfig> = {},
): Promise<Two> {
  const held = await ScriptedUpstream.start(test);
  const other = await ScriptedUpstream.start(test);
  addAll(held);
  const mirror = await startMirror(test, [
    upstreamOf(held, { name: "held.example", ...CREDENTIALS }),
    upstreamOf(other, {
      name: "other.example",
      isDefault: false,
      ...overrides,
    }),
  ]);
  for (const [name, path] of HELD) {
    const got = await mirror.get(`/v2/held.example/a/${path}`);
    assert.equal(got.status, 200, name);
  }
  await mirror.get(`/v2/held.example/a/referrers/${IMAGE.manifest.digest}`);
  await mirror.settled();
  held.forgetRequests();
  return { held, other, mirror };
}

/** Answers every HEAD with 200 and the digest and length of the content of `held`; GET is honest. */
function lieToHeads(other: ScriptedUpstream): void {
  other.when({ method: "HEAD" }, ({ kind, reference }: RecordedRequest) => {
    const what = HELD.find(([, path]) => path.endsWith(`/${reference}`))?.[2];
    return {
      status: 200,
      contentLength: what?.sizeBytes ?? 1,
      headers:
        kind === "manifest"
          ? {
              "content-type": what?.mediaType ?? OCI_MANIFEST,
              "docker-content-digest": what?.digest,
            }
          : {},
    };
  });
}

async function assertAbsent(
  { mirror }: Two,
  name: string,
  path: string,
  status = 404,
): Promise<void> {
  const isBlob = path.startsWith("blobs/");
  const target = `/v2/other.example/a/${path}`;
  for (const headers of [
    {},
    { Range: "bytes=0-9" },
    { Range: "bytes=-1" },
    { "If-None-Match": '"x"' },
  ]) {
    const got = await mirror.get(target, headers);
    assert.equal(got.status, status, `${name} ${JSON.stringify(headers)}`);
    const code = isBlob ? "BLOB_UNKNOWN" : "MANIFEST_UNKNOWN";
    if (status === 404) assert.equal(errorCode(got), code, name);
  }
  // The upstream answers the HEAD of a blob, which does not show what is stored.
  if (isBlob) return;
  assert.equal((await mirror.head(target)).status, status, name);
}

void describe("a digest that only another upstream has", () => {
  for (const [credentials, overrides] of [
    ["no credentials", {}],
    ["credentials", CREDENTIALS],
  ] as const) {
    void it(`is refused if this one, with ${credentials}, answers every HEAD with 200 and every GET with 404`, async (test) => {
      const two = await setUp(test, overrides);
      lieToHeads(two.other);
      for (const [name, path] of HELD) await assertAbsent(two, name, path);
      assert.equal(two.held.count(), 0);
      // From disk and from memory.
      await two.mirror.restart();
      for (const [name, path] of HELD) await assertAbsent(two, name, path);
      assert.equal(two.held.count(), 0);
    });
  }

  void it("is refused even if a manifest or an index of this one names it", async (test) => {
    const two = await setUp(test);
    const { other, mirror } = two;
    lieToHeads(other);
    const naming = manifestOf(
      {
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: descriptorJson(IMAGE.config),
        layers: [descriptorJson(LAYER)],
      },
      OCI_MANIFEST,
    );
    other.content.addManifest("a", naming, "names");
    other.content.addManifest("a", INDEX.manifest, "index");
    for (const digest of [naming.digest, INDEX.manifest.digest]) {
      const got = await mirror.get(`/v2/other.example/a/manifests/${digest}`);
      assert.equal(got.sha256, digest);
    }
    await assertAbsent(two, "config", `blobs/${IMAGE.config.digest}`);
    await assertAbsent(two, "layer", `blobs/${LAYER.digest}`);
    await assertAbsent(two, "child", `manifests/${CHILD.manifest.digest}`);
  });

  void it("does not complete an image of this one, so that its stale tag is not served", async (test) => {
    const { other, mirror } = await setUp(test);
    other.content.addManifest("a", IMAGE.manifest, "v");
    const path = "/v2/other.example/a/manifests/v";
    assert.equal((await mirror.get(path)).sha256, IMAGE.manifest.digest);
    const { body } = await mirror.operate("GET", "/images?q=other.example");
    assert.match(JSON.stringify(body), /"complete":false/);
    mirror.clock.advance(600_000);
    await other.stop();
    assert.equal((await mirror.get(path)).status, 502);
    mirror.clock.advance(600_000);
    const stale = await mirror.get("/v2/held.example/a/manifests/v");
    assert.equal(stale.status, 200);
  });

  void it("is refused while this one is down, and offline", async (test) => {
    const two = await setUp(test);
    await two.other.stop();
    for (const [name, path] of HELD) {
      const got = await two.mirror.get(`/v2/other.example/a/${path}`);
      assert.ok([502, 503].includes(got.status), `${name}: ${got.status}`);
    }
    await two.mirror.restart({ offline: true });
    for (const [name, path] of HELD) {
      await assertAbsent(two, name, path);
      const target = `/v2/other.example/a/${path}`;
      const got = await two.mirror.get(target);
      assert.equal(errorDetail(got), "offline");
      assert.equal((await two.mirror.head(target)).status, 404);
      const own = await two.mirror.get(`/v2/held.example/a/${path}`);
      assert.equal(own.status, 200, name);
    }
  });

  void it("is in no list of this one", async (test) => {
    const { other, mirror } = await setUp(test);
    const { digest } = IMAGE.manifest;
    const referrers = await mirror.get(
      `/v2/other.example/a/referrers/${digest}`,
    );
    assert.deepEqual(
      JSON.parse(referrers.body.toString()),
      JSON.parse(
        '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}',
      ),
    );
    assert.equal(
      (await mirror.get("/v2/other.example/a/tags/list")).status,
      404,
    );
    assert.equal(other.count({ kind: "referrers" }), 1);
    const catalog = await mirror.get("/v2/_catalog");
    assert.doesNotMatch(catalog.body.toString(), /other\.example/);
  });
});

void describe("a digest that two upstreams have", () => {
  void it("is fetched from each once, and is a hit of both afterwards", async (test) => {
    const { held, other, mirror } = await setUp(test);
    addAll(other);
    for (const [name, path, what] of HELD) {
      const target = `/v2/other.example/a/${path}`;
      const got = await mirror.get(target);
      assert.deepEqual([got.status, got.sha256], [200, what.digest], name);
      await mirror.settled();
      const again = await mirror.get(target);
      assert.match(cacheStatusOf(again) ?? "", /^hit/, name);
      assert.equal(again.sha256, what.digest, name);
      const part = await mirror.get(target, { Range: "bytes=2-5" });
      if (path.startsWith("blobs/")) assert.equal(part.bodyBytes, 4, name);
    }
    for (const { digest } of [
      IMAGE.config,
      LAYER,
      INDEX.manifest,
      CHILD.manifest,
      SIGNATURE.manifest,
    ]) {
      assert.equal(
        other.count({ method: "GET", reference: digest }),
        1,
        digest,
      );
    }
    assert.equal(held.count(), 0);
    await mirror.restart({ offline: true });
    for (const upstream of ["held.example", "other.example"]) {
      await pullImage(mirror, `${upstream}/a`, "v");
    }
  });

  void it("is not written twice if it is a manifest", async (test) => {
    const { other, mirror } = await setUp(test);
    addAll(other);
    const file = mirror.blobFile(IMAGE.manifest.digest);
    const before = await stat(file);
    const got = await mirror.get("/v2/other.example/a/manifests/v");
    assert.equal(cacheStatusOf(got), "fwd=miss; fwd-status=200; stored");
    const after = await stat(file);
    assert.deepEqual([after.ino, after.mtimeMs], [before.ino, before.mtimeMs]);
  });

  void it("has the media type of each upstream, in memory and on disk", async (test) => {
    const { held, other, mirror } = await setUp(test);
    const untyped = manifestOf(
      { schemaVersion: 2, config: descriptorJson(IMAGE.config), layers: [] },
      DOCKER_MANIFEST,
    );
    const honest = { ...untyped, mediaType: OCI_MANIFEST };
    held.content.addManifest("a", untyped, "t");
    other.content.addManifest("a", honest, "t");
    const types = async () => {
      const answers = await Promise.all(
        ["t", untyped.digest].flatMap((reference) =>
          ["held", "other"].map((name) =>
            mirror.get(`/v2/${name}.example/a/manifests/${reference}`),
          ),
        ),
      );
      return answers.map(({ headers }) => headers["content-type"]);
    };
    const both = [DOCKER_MANIFEST, OCI_MANIFEST];
    assert.deepEqual(await types(), [...both, ...both]);
    assert.deepEqual(await types(), [...both, ...both]);
    await mirror.restart();
    assert.deepEqual(await types(), [...both, ...both]);
  });

  void it("costs one HEAD for another repository of an upstream that has it", async (test) => {
    const { other, mirror } = await setUp(test);
    addAll(other);
    await mirror.get(`/v2/other.example/a/blobs/${LAYER.digest}`);
    await mirror.settled();
    other.content.addBlob("b", LAYER);
    other.forgetRequests();
    const got = await mirror.get(`/v2/other.example/b/blobs/${LAYER.digest}`);
    assert.equal(got.sha256, LAYER.digest);
    assert.deepEqual(
      other.requests().map(({ method, kind }) => `${method} ${kind}`),
      ["HEAD blob"],
    );
  });
});
