import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { digestOf } from "../../../src/oci/digest.ts";
import type { AfterTest } from "../../support/after-test.ts";
import {
  buildImage,
  descriptorJson,
  manifestOf,
  seededBlob,
} from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  errorCode,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { readParts } from "../../support/multipart.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

interface Scene {
  readonly upstream: ScriptedUpstream;
  readonly mirror: TestMirror;
}

async function setUp(t: AfterTest): Promise<Scene> {
  const upstream = await ScriptedUpstream.start(t, { redirectBlobs: {} });
  const mirror = await startMirror(t, [upstreamOf(upstream)]);
  return { upstream, mirror };
}

/** Layers that engines fetch in pieces; a mirror does not interpret the content of layers. */
const PIECEWISE = [
  ["zstd", "application/vnd.oci.image.layer.v1.tar+zstd", {}],
  [
    "zstd:chunked",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    {
      "io.github.containers.zstd-chunked.manifest-checksum": `sha256:${"b".repeat(64)}`,
      "io.github.containers.zstd-chunked.manifest-position":
        "990000:5000:20000:1",
    },
  ],
  [
    "eStargz",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    {
      "containerd.io/snapshot/stargz/toc.digest": `sha256:${"c".repeat(64)}`,
    },
  ],
] as const;

void describe("a layer that is fetched in pieces", () => {
  for (const [name, mediaType, annotations] of PIECEWISE) {
    void it(`as ${name} is served by ranges, byte for byte, cold and warm`, async (t) => {
      const { upstream, mirror } = await setUp(t);
      const layer = seededBlob(`content/${name}`, 1_000_000, { mediaType });
      const image = buildImage({
        seed: name,
        layers: [{ ...layer, annotations } as typeof layer],
      });
      upstream.content.addImage("a", image, "v");
      const manifest = await mirror.get("/v2/a/manifests/v");
      assert.equal(manifest.sha256, image.manifest.digest);
      const path = `/v2/a/blobs/${layer.digest}`;
      const bytes = layer.bytes();
      // The footer first, then the table of contents that it locates, then files.
      const ranges = [
        ["bytes=-51", 999_949, 999_999],
        ["bytes=990000-994999", 990_000, 994_999],
        ["bytes=0-1023", 0, 1_023],
        ["bytes=500000-", 500_000, 999_999],
      ] as const;
      for (const round of ["cold", "warm"]) {
        for (const [range, first, last] of ranges) {
          const got = await mirror.get(path, { Range: range });
          assert.deepEqual(
            [got.status, got.headers["content-range"]],
            [206, `bytes ${first}-${last}/1000000`],
            `${round} ${range}`,
          );
          assert.equal(
            got.sha256,
            digestOf(bytes.subarray(first, last + 1)),
            `${round} ${range}`,
          );
        }
        const parts = await mirror.get(path, { Range: "bytes=0-9,20-29" });
        assert.deepEqual(
          [
            parts.status,
            readParts(parts).map(({ contentRange, bytes: part }) => [
              contentRange,
              digestOf(part),
            ]),
          ],
          [
            206,
            [
              ["bytes 0-9/1000000", digestOf(bytes.subarray(0, 10))],
              ["bytes 20-29/1000000", digestOf(bytes.subarray(20, 30))],
            ],
          ],
        );
        await mirror.settled();
        if (round === "cold") upstream.forgetRequests();
      }
      assert.equal(upstream.count(), 0, "warm ranges cost nothing upstream");
    });
  }
});

void describe("a foreign layer", () => {
  void it("is served as the manifest names it, and its URLs are never requested", async (t) => {
    const { upstream, mirror } = await setUp(t);
    const trap = await ScriptedUpstream.start(t);
    const image = buildImage({ seed: "foreign" });
    const layer = image.layers[0] ?? assert.fail();
    const foreign = seededBlob("foreign/base", 2_000, {
      mediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    });
    const manifest = manifestOf(
      {
        schemaVersion: 2,
        mediaType: image.manifest.mediaType,
        config: descriptorJson(image.config),
        layers: [
          {
            ...descriptorJson(foreign),
            urls: [
              `${trap.origin}/base.tar.gz`,
              "http://169.254.169.254/latest/meta-data/",
            ],
          },
          descriptorJson(layer),
        ],
      },
      image.manifest.mediaType,
    );
    for (const blob of image.blobs) upstream.content.addBlob("a", blob);
    upstream.content.addManifest("a", manifest, "v");
    const got = await mirror.get("/v2/a/manifests/v");
    assert.equal(got.sha256, manifest.digest);
    // The registry does not have the layer, like Microsoft's; a registry that has it may serve it.
    const missing = await mirror.get(`/v2/a/blobs/${foreign.digest}`);
    assert.deepEqual(
      [missing.status, errorCode(missing)],
      [404, "BLOB_UNKNOWN"],
    );
    const own = await mirror.get(`/v2/a/blobs/${layer.digest}`);
    assert.equal(own.sha256, layer.digest);
    const { mirror: other, upstream: second } = await setUp(t);
    second.content.addManifest("a", manifest, "v");
    for (const blob of [...image.blobs, foreign]) {
      second.content.addBlob("a", blob);
    }
    await pullImage(other, "a", "v");
    assert.equal(trap.registry.connectionCount, 0);
  });
});

void describe("a manifest of an unknown type", () => {
  void it("is stored unchanged, with the blobs that it names in fields of its own", async (t) => {
    const { upstream, mirror } = await setUp(t);
    const mediaType = "application/vnd.example.model.manifest.v7+json";
    const weights = seededBlob("opaque/weights", 3_000, {
      mediaType: "application/vnd.example.weights",
    });
    const manifest = manifestOf(
      {
        schemaVersion: 2,
        mediaType,
        parts: [{ of: "weights", ...descriptorJson(weights) }],
      },
      mediaType,
    );
    upstream.content.addManifest("a", manifest, "v");
    upstream.content.addBlob("a", weights);
    for (const want of [/stored$/, /^hit/]) {
      const got = await mirror.get(`/v2/a/manifests/${manifest.digest}`);
      assert.equal(got.sha256, manifest.digest);
      assert.equal(got.headers["content-type"], mediaType);
      assert.match(cacheStatusOf(got) ?? "", want);
    }
    const blob = await mirror.get(`/v2/a/blobs/${weights.digest}`);
    assert.equal(blob.sha256, weights.digest);
  });
});
