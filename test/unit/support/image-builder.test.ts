import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import {
  buildArtifact,
  type BuildImageOptions,
  buildImage,
  buildIndex,
  buildMultiArch,
  buildReferrersIndex,
  bytesBlob,
  seededBlob,
} from "../../support/image-builder.ts";
import { readParts, seededBytes } from "../../support/seeded-bytes.ts";

function digestFor(options: Partial<BuildImageOptions>): string {
  return buildImage({ seed: "x", ...options }).manifest.digest;
}

void describe("seeded bytes", () => {
  void it("are the same wherever they are entered", () => {
    const whole = seededBytes("a", 10_000).read(0, 10_000);
    for (const [offset, length] of [
      [0, 1],
      [15, 2],
      [16, 16],
      [4_097, 5_000],
      [9_999, 1],
    ] as const) {
      assert.deepEqual(
        seededBytes("a", 10_000).read(offset, length),
        whole.subarray(offset, offset + length),
      );
    }
  });

  void it("end where the source ends and differ by seed", () => {
    assert.equal(seededBytes("a", 10).read(8, 100).length, 2);
    assert.equal(seededBytes("a", 10).read(10, 1).length, 0);
    assert.notDeepEqual(
      seededBytes("a", 32).read(0, 32),
      seededBytes("b", 32).read(0, 32),
    );
  });
});

void describe("an image from the builder", () => {
  void it("names its blobs by the digests of their bytes", () => {
    const image = buildImage({ seed: "x", layers: [0, 1, 300_000] });
    const manifest = JSON.parse(image.manifest.bytes.toString()) as {
      config: { digest: string };
      layers: { digest: string; size: number }[];
    };
    assert.equal(manifest.config.digest, image.config.digest);
    assert.deepEqual(
      manifest.layers.map((layer) => layer.size),
      [0, 1, 300_000],
    );
    for (const [at, layer] of image.layers.entries()) {
      const hash = createHash("sha256");
      for (const part of readParts(layer, 0, layer.sizeBytes, 1_000)) {
        hash.update(part);
      }
      assert.equal(manifest.layers[at]?.digest, layer.digest);
      assert.equal(layer.digest, `sha256:${hash.digest("hex")}`);
    }
  });

  void it("is the same bytes for the same seed, and others for another format or algorithm", () => {
    assert.equal(digestFor({}), digestFor({}));
    assert.notEqual(digestFor({}), digestFor({ format: "docker" }));
    assert.match(digestFor({ algorithm: "sha512" }), /^sha512:[a-f0-9]{128}$/);
  });

  void it("stands in an index with its platform", () => {
    const index = buildMultiArch({ seed: "x" });
    const { manifests } = JSON.parse(index.manifest.bytes.toString()) as {
      manifests: { digest: string; platform: { architecture: string } }[];
    };
    assert.deepEqual(
      manifests.map((one) => [one.digest, one.platform.architecture]),
      index.images.map((one) => [
        one.manifest.digest,
        one.platform.architecture,
      ]),
    );
    assert.equal(
      buildIndex(index.images, { format: "docker" }).manifest.mediaType,
      "application/vnd.docker.distribution.manifest.list.v2+json",
    );
  });

  void it("is the subject of an artifact that the referrers index lists", () => {
    const image = buildImage({ seed: "x" });
    const artifact = buildArtifact({
      seed: "sbom",
      artifactType: "application/spdx+json",
      subject: image.manifest,
    });
    assert.equal(artifact.manifest.subject, image.manifest.digest);
    const index = JSON.parse(
      buildReferrersIndex([artifact.manifest]).bytes.toString(),
    ) as { manifests: { digest: string; artifactType: string }[] };
    assert.equal(index.manifests[0]?.digest, artifact.manifest.digest);
    assert.equal(index.manifests[0]?.artifactType, "application/spdx+json");
  });

  void it("has known digests for the empty blob and the empty object", () => {
    assert.match(seededBlob("any", 0).digest, /^sha256:e3b0c44298fc1c14/);
    assert.match(bytesBlob("{}").digest, /^sha256:44136fa355b3678a/);
  });
});
