import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Digest } from "../../../src/oci/digest.ts";
import { Barrier } from "../../support/barrier.ts";
import { buildArtifact, buildImage } from "../../support/image-builder.ts";
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
import type { Misbehaviour } from "../../support/wire-answer.ts";

const IMAGE = buildImage({ seed: "subject" });
const SUBJECT = IMAGE.manifest;
const SIGNATURE = "application/vnd.dev.cosign.artifact.sig.v1+json";
const SBOM = "application/spdx+json";
const ARTIFACTS = [
  buildArtifact({ seed: "1", artifactType: SIGNATURE, subject: SUBJECT }),
  buildArtifact({ seed: "2", artifactType: SBOM, subject: SUBJECT }),
  buildArtifact({ seed: "3", artifactType: SIGNATURE, subject: SUBJECT }),
];
const RANDOM = `sha256:${"0123456789abcdef".repeat(4)}` as Digest;
const PATH = `/v2/a/referrers/${SUBJECT.digest}`;
/** Time to live of a list, and of its absence. */
const TTL_MS = 30_000;

async function setUp(
  test: AfterTest,
  options: ScriptedUpstreamOptions = {},
  patienceMs?: number,
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test, options);
  upstream.content.addImage("a", IMAGE, "v");
  for (const artifact of ARTIFACTS) upstream.content.addImage("a", artifact);
  const mirror = await startMirror(
    test,
    [upstreamOf(upstream)],
    patienceMs === undefined ? {} : { patienceMs },
  );
  return { upstream, mirror };
}

/** Returns the digests that a response lists. */
function listed(response: RawResponse): readonly string[] {
  assert.equal(response.status, 200);
  assert.equal(
    response.headers["content-type"],
    "application/vnd.oci.image.index.v1+json",
  );
  assert.equal(response.headers["content-length"], String(response.bodyBytes));
  const index = JSON.parse(response.body.toString()) as {
    readonly schemaVersion: number;
    readonly mediaType: string;
    readonly manifests: readonly { readonly digest: string }[];
  };
  assert.equal(index.schemaVersion, 2);
  return index.manifests.map(({ digest }) => digest);
}

const ALL = ARTIFACTS.map(({ manifest }) => manifest.digest);

void describe("referrers", () => {
  for (const referrersApi of [true, false]) {
    void it(`are those of the upstream's ${referrersApi ? "API" : "fallback tag"}, from the cache for notFoundTtl`, async (test) => {
      const { upstream, mirror } = await setUp(test, { referrersApi });
      await mirror.get(`/v2/a/manifests/${SUBJECT.digest}`);
      upstream.forgetRequests();
      const miss = await mirror.get(PATH);
      assert.deepEqual(listed(miss), ALL);
      assert.equal(cacheStatusOf(miss), "fwd=miss; fwd-status=200; stored");
      const asked = upstream.count();
      assert.equal(asked, referrersApi ? 1 : 2);
      mirror.clock.advance(10_000);
      const hit = await mirror.get(PATH);
      assert.deepEqual(hit.body, miss.body);
      assert.equal(cacheStatusOf(hit), "hit; ttl=20");
      assert.equal(hit.headers["age"], "10");
      assert.equal(upstream.count(), asked);
      await mirror.restart();
      assert.deepEqual(listed(await mirror.get(PATH)), ALL);
      assert.equal(upstream.count(), asked);
    });
  }

  void it("of a manifest without a link are kept in memory only, not in the index", async (test) => {
    const { upstream, mirror } = await setUp(test);
    for (let i = 0; i < 3; i++) {
      assert.deepEqual(listed(await mirror.get(PATH)), ALL);
    }
    assert.equal(upstream.count(), 1);
    assert.equal(await mirror.metric("entrepot_storage_bytes"), 0);
    await mirror.restart();
    assert.deepEqual(listed(await mirror.get(PATH)), ALL);
    assert.equal(upstream.count(), 2);
  });

  void it("count towards storage_bytes, and are removed with their subject", async (test) => {
    const { mirror } = await setUp(test);
    await mirror.get("/v2/a/manifests/v");
    const before = await mirror.metric("entrepot_storage_bytes");
    const { bodyBytes } = await mirror.get(PATH);
    const bytes = await mirror.metric("entrepot_storage_bytes");
    assert.equal(bytes, before + bodyBytes);
    const name = `${upstreamOf({ origin: "http://x" }).name}/a:v`;
    const gone = await mirror.operate("DELETE", `/images/${name}`);
    assert.equal(gone.status, 200);
    assert.equal(await mirror.metric("entrepot_storage_bytes"), 0);
  });

  void it("are fetched in pages and served as one list", async (test) => {
    const { mirror } = await setUp(test, { pageSize: 2 });
    const got = await mirror.get(PATH);
    assert.deepEqual(listed(got), ALL);
    assert.equal(got.headers["link"], undefined);
  });

  void it("are filtered by artifact type in the mirror, and OCI-Filters-Applied states it", async (test) => {
    const { upstream, mirror } = await setUp(test);
    for (const [query, want, filters] of [
      ["", ALL, undefined],
      [`?artifactType=${SIGNATURE}`, [ALL[0], ALL[2]], "artifactType"],
      [`?artifactType=${encodeURIComponent(SBOM)}`, [ALL[1]], "artifactType"],
      [`?artifactType=${SBOM}&artifactType=${SIGNATURE}`, ALL, "artifactType"],
      ["?artifactType=none/none", [], "artifactType"],
      ["?artifactType=", ALL, undefined],
    ] as const) {
      const got = await mirror.get(PATH + query);
      assert.deepEqual(listed(got), want, query);
      assert.equal(got.headers["oci-filters-applied"], filters);
      const head = await mirror.head(PATH + query);
      assert.equal(head.headers["content-length"], String(got.bodyBytes));
    }
    assert.equal(upstream.count(), 1);
    assert.equal(upstream.requests()[0]?.query.size, 0);
  });

  for (const referrersApi of [true, false]) {
    void it(`of an unknown digest are an empty index, kept in memory only (API: ${referrersApi})`, async (test) => {
      const { upstream, mirror } = await setUp(test, { referrersApi });
      for (let i = 0; i < 3; i++) {
        const got = await mirror.get(`/v2/none/referrers/${RANDOM}`);
        assert.deepEqual(listed(got), []);
      }
      assert.equal(upstream.count(), referrersApi ? 1 : 2);
      await mirror.restart({ offline: true });
      const offline = await mirror.get(`/v2/none/referrers/${RANDOM}`);
      assert.equal(offline.status, 404);
    });
  }

  void it("that are empty are stored with a cached image", async (test) => {
    const upstream = await ScriptedUpstream.start(test, {
      referrersApi: false,
    });
    upstream.content.addImage("a", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    await mirror.get("/v2/a/manifests/v");
    assert.deepEqual(listed(await mirror.get(PATH)), []);
    upstream.forgetRequests();
    await mirror.restart({ offline: true });
    assert.deepEqual(listed(await mirror.get(PATH)), []);
    mirror.clock.advance(TTL_MS);
    const stale = await mirror.get(PATH);
    assert.deepEqual(listed(stale), []);
    assert.equal(cacheStatusOf(stale), "hit; detail=stale");
    assert.equal(stale.headers["age"], "30");
    assert.equal(upstream.count(), 0);
  });

  const api = { kind: "referrers" } as const;
  const tag = { kind: "manifest" } as const;
  for (const [name, rules] of [
    ["the API fails", [[api, { status: 500 }]]],
    [
      "the API answers an HTML page",
      [[api, { body: "<html>", headers: { "content-type": "text/html" } }]],
    ],
    [
      "the API answers another document",
      [[api, { body: '{"manifests":[{}]}' }]],
    ],
    [
      "the API answers a list of another type",
      [
        [
          api,
          {
            body: JSON.stringify({
              schemaVersion: 2,
              mediaType:
                "application/vnd.docker.distribution.manifest.list.v2+json",
              manifests: [],
            }),
          },
        ],
      ],
    ],
    [
      "the API answers 404 and the fallback tag fails",
      [
        [api, { status: 404 }],
        [tag, { status: 500 }],
      ],
    ],
    [
      "the API answers 404 and the fallback tag is an image",
      [
        [api, { status: 404 }],
        [
          tag,
          {
            status: 200,
            body: IMAGE.manifest.bytes,
            headers: { "content-type": IMAGE.manifest.mediaType },
          },
        ],
      ],
    ],
  ] satisfies readonly (readonly [
    string,
    readonly (readonly [{ kind: "referrers" | "manifest" }, Misbehaviour])[],
  ])[]) {
    void it(`are 502 if ${name}, or the stale list if there is one`, async (test) => {
      const { upstream, mirror } = await setUp(test);
      for (const [match, fault] of rules) upstream.when(match, fault);
      const cold = await mirror.get(PATH);
      assert.deepEqual([cold.status, errorCode(cold)], [502, "UNAVAILABLE"]);
      upstream.clearRules();
      mirror.clock.advance(300_000);
      assert.deepEqual(listed(await mirror.get(PATH)), ALL);
      mirror.clock.advance(TTL_MS);
      for (const [match, fault] of rules) upstream.when(match, fault);
      const stale = await mirror.get(PATH);
      assert.deepEqual(listed(stale), ALL);
      assert.match(cacheStatusOf(stale) ?? "", /^fwd=stale.*detail=stale$/);
      assert.match(stale.headers["warning"] ?? "", /^299 /);
      assert.equal(stale.headers["age"], "30");
    });
  }

  void it("are answered stale immediately while the upstream is slow", async (test) => {
    const { upstream, mirror } = await setUp(test, {}, 100);
    await mirror.get(PATH);
    mirror.clock.advance(TTL_MS);
    const barrier = new Barrier();
    upstream.when(api, { hold: { at: "headers", barrier } });
    for (const status of ["fwd=stale; detail=stale", "hit; detail=stale"]) {
      const stale = await mirror.get(PATH);
      assert.deepEqual(listed(stale), ALL);
      assert.equal(cacheStatusOf(stale), status);
    }
    barrier.release();
    await mirror.answersWith(
      PATH,
      ({ headers }) => headers["warning"] === undefined,
    );
    assert.equal(upstream.count(api), 2);
  });

  void it("of an invalid digest are 400, without an upstream request", async (test) => {
    const { upstream, mirror } = await setUp(test);
    for (const digest of ["latest", "sha256:abc", "sha1:abc"]) {
      const got = await mirror.get(`/v2/a/referrers/${digest}`);
      assert.deepEqual([got.status, errorCode(got)], [400, "DIGEST_INVALID"]);
    }
    assert.equal(upstream.count(), 0);
  });

  void it("requested by the sigstore tag are 404 if there are none", async (test) => {
    const { mirror } = await setUp(test);
    const tagged = SUBJECT.digest.replace(":", "-");
    const got = await mirror.get(`/v2/a/manifests/${tagged}.sig`);
    assert.deepEqual([got.status, errorCode(got)], [404, "MANIFEST_UNKNOWN"]);
  });
});
