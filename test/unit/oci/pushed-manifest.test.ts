import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  DOCKER_LIST,
  DOCKER_MANIFEST,
  OCI_INDEX,
  OCI_MANIFEST,
  SCHEMA1_SIGNED,
} from "../../../src/oci/media-type.ts";
import { parsePushedManifest } from "../../../src/oci/pushed-manifest.ts";
import {
  buildArtifact,
  buildImage,
  buildMultiArch,
  descriptorJson,
} from "../../support/image-builder.ts";

const IMAGE = buildImage({ seed: "pushed" });
const DOCKER = buildImage({ seed: "pushed docker", format: "docker" });
const INDEX = buildMultiArch({ seed: "pushed index" });
const LIST = buildMultiArch({ seed: "pushed list", format: "docker" });
const SIGNATURE = buildArtifact({
  seed: "pushed signature",
  artifactType: "application/vnd.example.signature",
  subject: IMAGE.manifest,
  annotations: { "org.example.key": "value", ["__proto__"]: "text" },
});

function encode(document: object): Buffer {
  return Buffer.from(JSON.stringify(document));
}

const BARE = {
  schemaVersion: 2,
  config: descriptorJson(IMAGE.config),
  layers: IMAGE.layers.map(descriptorJson),
};

void describe("a pushed manifest", () => {
  for (const { manifest } of [IMAGE, DOCKER, INDEX, LIST, SIGNATURE]) {
    void it(`of ${manifest.mediaType} is accepted with its Content-Type or without one`, () => {
      for (const contentType of [
        manifest.mediaType,
        `${manifest.mediaType}; charset=utf-8`,
        undefined,
      ]) {
        const parsed = parsePushedManifest(manifest.bytes, contentType);
        assert.ok(parsed.ok);
        assert.equal(parsed.mediaType, manifest.mediaType);
        assert.equal(parsed.subject, manifest.subject);
      }
    });
  }

  void it("is described to lists of referrers by its artifact type and annotations", () => {
    const { manifest } = SIGNATURE;
    const parsed = parsePushedManifest(manifest.bytes, manifest.mediaType);
    assert.ok(parsed.ok);
    assert.equal(parsed.artifactType, "application/vnd.example.signature");
    assert.deepEqual(
      Object.entries(parsed.annotations ?? {}),
      Object.entries(manifest.annotations ?? {}),
    );
  });

  void it("without an artifact type has the media type of its config", () => {
    const subject = descriptorJson(IMAGE.manifest);
    const document = { ...BARE, subject, artifactType: "" };
    const parsed = parsePushedManifest(encode(document), OCI_MANIFEST);
    assert.ok(parsed.ok);
    assert.equal(parsed.artifactType, IMAGE.config.mediaType);
  });

  void it("without a media type of its own has that of the request", () => {
    const parsed = parsePushedManifest(encode(BARE), OCI_MANIFEST);
    assert.ok(parsed.ok);
    assert.equal(parsed.mediaType, OCI_MANIFEST);
    const docker = parsePushedManifest(encode(BARE), DOCKER_MANIFEST);
    assert.ok(docker.ok);
    assert.equal(docker.mediaType, DOCKER_MANIFEST);
  });

  const faults: readonly (readonly [string, Buffer, string | undefined])[] = [
    ["is not JSON", Buffer.from("{"), OCI_MANIFEST],
    ["is empty", Buffer.alloc(0), OCI_MANIFEST],
    ["is not an object", Buffer.from("[]"), OCI_MANIFEST],
    [
      "has another media type than the request",
      IMAGE.manifest.bytes,
      DOCKER_MANIFEST,
    ],
    [
      "is sent with a type that is not of a manifest",
      IMAGE.manifest.bytes,
      "text/plain",
    ],
    ["is sent with a malformed type", IMAGE.manifest.bytes, "\u0001"],
    [
      "is an index that is sent as an image",
      INDEX.manifest.bytes,
      OCI_MANIFEST,
    ],
    [
      "is both an image and an index",
      encode({ ...BARE, manifests: [] }),
      OCI_INDEX,
    ],
    [
      "is of schema 1",
      encode({ schemaVersion: 1, fsLayers: [] }),
      SCHEMA1_SIGNED,
    ],
    [
      "has an unknown media type",
      encode({ schemaVersion: 2, mediaType: "application/vnd.example+json" }),
      undefined,
    ],
    [
      "has another schema version",
      encode({ ...BARE, schemaVersion: 3 }),
      OCI_MANIFEST,
    ],
    [
      "has no schema version",
      encode({ ...BARE, schemaVersion: undefined }),
      OCI_MANIFEST,
    ],
    [
      "is an image without a config",
      encode({ schemaVersion: 2, layers: [] }),
      OCI_MANIFEST,
    ],
    [
      "names a digest of an unknown algorithm",
      encode({
        ...BARE,
        layers: [{ mediaType: "a/b", digest: "md5:00", size: 1 }],
      }),
      OCI_MANIFEST,
    ],
    [
      "has annotations that are not texts",
      encode({ ...BARE, annotations: { a: 1 } }),
      OCI_MANIFEST,
    ],
    [
      "has a list of annotations",
      encode({ ...BARE, annotations: ["a"] }),
      OCI_MANIFEST,
    ],
    [
      "has an artifact type that is not a media type",
      encode({ ...BARE, artifactType: "a\r\nb" }),
      OCI_MANIFEST,
    ],
    [
      "is a list whose children are not a list",
      encode({ schemaVersion: 2, manifests: {} }),
      DOCKER_LIST,
    ],
  ];
  for (const [what, bytes, contentType] of faults) {
    void it(`that ${what} is refused`, () => {
      const parsed = parsePushedManifest(bytes, contentType);
      assert.equal(parsed.ok, false);
    });
  }
});
