import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  buildArtifact,
  buildImage,
  type TestImage,
} from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const IMAGE = buildImage({ seed: "signed" });
const { digest: DIGEST } = IMAGE.manifest;
const SIG_TAG = `${DIGEST.replace(":", "-")}.sig`;
const BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json";
const REF = "registry.example/a:v";
/** Time limit for `cosign verify` to succeed, and the time to live of absence. */
const WITHIN_MS = 35_000;
const NOT_FOUND_MS = 30_000;

/** A signature as cosign 2 writes it: a manifest at a tag, with a layer for each signature. */
function signatureManifest(count: number): TestImage {
  return buildImage({
    seed: `signatures/${count}`,
    layers: Array.from({ length: count }, (_, at) => 200 + at),
  });
}

/** A signature as cosign 3, and cosign 2 with `--new-bundle-format`, writes it: a referrer. */
function bundle(at: number): TestImage {
  return buildArtifact({
    seed: `bundle/${at}`,
    artifactType: BUNDLE,
    subject: IMAGE.manifest,
  });
}

/** Signs the image at its registry, in both formats. */
function sign(upstream: ScriptedUpstream, count: number): void {
  upstream.content.addImage("a", signatureManifest(count), SIG_TAG);
  upstream.content.addImage("a", bundle(count));
}

interface Found {
  /** Layers of the manifest at the tag that is named after the digest. */
  readonly tagged: number;
  /** Bundles that are listed as referrers and whose manifest and layer are available. */
  readonly bundles: number;
}

/** Sends the requests of `cosign verify` for an image by its tag. */
async function verify(mirror: TestMirror): Promise<Found> {
  const image = await mirror.get("/v2/a/manifests/v");
  assert.equal(image.status, 200);
  assert.equal(image.headers["docker-content-digest"], DIGEST);
  const read = async (path: string) => {
    const { status, body } = await mirror.get(path);
    if (status === 404) return {};
    assert.equal(status, 200, path);
    return JSON.parse(body.toString()) as {
      readonly layers?: readonly { readonly digest: string }[];
      readonly manifests?: readonly { readonly digest: string }[];
    };
  };
  const tagged = await read(`/v2/a/manifests/${SIG_TAG}`);
  for (const { digest } of tagged.layers ?? []) {
    assert.equal((await mirror.get(`/v2/a/blobs/${digest}`)).status, 200);
  }
  const listed = await read(`/v2/a/referrers/${DIGEST}?artifactType=${BUNDLE}`);
  for (const { digest } of listed.manifests ?? []) {
    const { layers = [] } = await read(`/v2/a/manifests/${digest}`);
    for (const layer of layers) {
      const { status } = await mirror.get(`/v2/a/blobs/${layer.digest}`);
      assert.equal(status, 200);
    }
  }
  return {
    tagged: tagged.layers?.length ?? 0,
    bundles: listed.manifests?.length ?? 0,
  };
}

async function setUp(
  test: AfterTest,
  referrersApi: boolean,
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test, { referrersApi });
  upstream.content.addImage("a", IMAGE, "v");
  const mirror = await startMirror(test, [upstreamOf(upstream)]);
  return { upstream, mirror };
}

for (const referrersApi of [true, false]) {
  void describe(`a signature at a registry ${referrersApi ? "with" : "without"} the referrers API`, () => {
    for (const earlier of [0, 1]) {
      void it(`is found within 35 s of its push, with ${earlier} known before`, async (test) => {
        const { upstream, mirror } = await setUp(test, referrersApi);
        if (earlier > 0) sign(upstream, earlier);
        const known = { tagged: earlier, bundles: earlier };
        assert.deepEqual(await verify(mirror), known);
        sign(upstream, earlier + 1);
        mirror.clock.advance(NOT_FOUND_MS - 1);
        upstream.forgetRequests();
        assert.deepEqual(await verify(mirror), known);
        assert.equal(upstream.count(), 0);
        mirror.clock.advance(WITHIN_MS - NOT_FOUND_MS + 1);
        assert.deepEqual(await verify(mirror), {
          tagged: earlier + 1,
          bundles: earlier + 1,
        });
      });

      for (const reference of [":v", `@${DIGEST}`]) {
        void it(`is found after a refresh of ${reference.slice(0, 8)}, with ${earlier} known before`, async (test) => {
          const { upstream, mirror } = await setUp(test, referrersApi);
          if (earlier > 0) sign(upstream, earlier);
          await verify(mirror);
          sign(upstream, earlier + 1);
          const answer = await mirror.operate(
            "POST",
            `/images/registry.example/a${reference}/refresh`,
          );
          assert.deepEqual(answer, {
            status: 200,
            body: {
              ref: `registry.example/a${reference}`,
              digest: DIGEST,
              changed: false,
            },
          });
          assert.deepEqual(await verify(mirror), {
            tagged: earlier + 1,
            bundles: earlier + 1,
          });
        });
      }
    }

    void it("is found while the upstream is down, once it was verified", async (test) => {
      const { upstream, mirror } = await setUp(test, referrersApi);
      sign(upstream, 1);
      await verify(mirror);
      await pullImage(mirror, "a", "v");
      await upstream.stop();
      mirror.clock.advance(24 * 3_600_000);
      const stale = await mirror.get(`/v2/a/referrers/${DIGEST}`);
      assert.match(stale.headers["warning"] ?? "", /^299 /);
      assert.deepEqual(await verify(mirror), { tagged: 1, bundles: 1 });
    });
  });
}

void describe("a refresh", () => {
  void it("renews the list of tags if it is remembered", async (test) => {
    const { upstream, mirror } = await setUp(test, true);
    await mirror.get("/v2/a/manifests/v");
    const tags = { kind: "tags" } as const;
    await mirror.operate("POST", `/images/${REF}/refresh`);
    assert.equal(upstream.count(tags), 0);
    const list = async () =>
      JSON.parse((await mirror.get("/v2/a/tags/list")).body.toString()) as {
        readonly tags: readonly string[];
      };
    assert.deepEqual((await list()).tags, ["v"]);
    upstream.content.addImage("a", IMAGE, "w");
    assert.deepEqual((await list()).tags, ["v"]);
    await mirror.operate("POST", `/images/${REF}/refresh`);
    upstream.forgetRequests();
    assert.deepEqual((await list()).tags, ["v", "w"]);
    assert.equal(upstream.count(), 0);
  });

  void it("fetches a list again if the upstream reported it as absent", async (test) => {
    const { upstream, mirror } = await setUp(test, true);
    await mirror.get("/v2/a/manifests/v");
    upstream.when({ kind: "tags" }, { status: 404 }, { times: 1 });
    assert.equal((await mirror.get("/v2/a/tags/list")).status, 404);
    assert.equal((await mirror.get("/v2/a/tags/list")).status, 404);
    await mirror.operate("POST", `/images/${REF}/refresh`);
    assert.equal((await mirror.get("/v2/a/tags/list")).status, 200);
  });

  for (const status of [401, 403, 404]) {
    void it(`succeeds even if the upstream answers ${status} for its lists`, async (test) => {
      const { upstream, mirror } = await setUp(test, true);
      await mirror.get("/v2/a/tags/list");
      await mirror.get("/v2/a/manifests/v");
      for (const kind of ["tags", "referrers"] as const) {
        upstream.when({ kind }, { status });
      }
      const answer = await mirror.operate("POST", `/images/${REF}/refresh`);
      assert.equal(answer.status, 200);
    });
  }

  for (const kind of ["tags", "referrers"] as const) {
    void it(`of a digest fails if the upstream's list of ${kind} fails`, async (test) => {
      const { upstream, mirror } = await setUp(test, true);
      await mirror.get("/v2/a/tags/list");
      await mirror.get(`/v2/a/manifests/${DIGEST}`);
      upstream.when({ kind }, { status: 500 });
      const answer = await mirror.operate(
        "POST",
        `/images/registry.example/a@${DIGEST}/refresh`,
      );
      assert.equal(answer.status, 502);
    });
  }
});
