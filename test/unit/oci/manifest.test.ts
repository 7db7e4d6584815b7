import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { digestOf } from "../../../src/oci/digest.ts";
import {
  type ParsedManifest,
  parseManifest,
} from "../../../src/oci/manifest.ts";
import type { ManifestFault } from "../../../src/oci/manifest-document.ts";
import {
  DOCKER_LIST,
  DOCKER_MANIFEST,
  isMediaType,
  OCI_INDEX,
  OCI_MANIFEST,
  OCTET_STREAM,
  SCHEMA1,
  SCHEMA1_SIGNED,
} from "../../../src/oci/media-type.ts";

const CONFIG = "application/vnd.oci.image.config.v1+json";
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";

function descriptor(
  name: string,
  mediaType: string | undefined,
  more: object = {},
): { digest: string; size: number } {
  const bytes = Buffer.from(name);
  return {
    ...(mediaType === undefined ? {} : { mediaType }),
    digest: digestOf(bytes),
    size: bytes.length,
    ...more,
  };
}

const config = descriptor("config", CONFIG);
const layer = descriptor("layer", LAYER);
const image = { schemaVersion: 2, config, layers: [layer] };
const child = descriptor("child", OCI_MANIFEST);
const index = { schemaVersion: 2, manifests: [child] };

function parse(
  body: unknown,
  contentType?: string,
): ParsedManifest | ManifestFault {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return parseManifest(Buffer.from(text), contentType);
}

function parsed(body: unknown, contentType?: string): ParsedManifest {
  const manifest = parse(body, contentType);
  assert(manifest.ok, "detail" in manifest ? manifest.detail : "");
  return manifest;
}

function asChild(of: { digest: string; size: number }, more: object): object {
  return { digest: of.digest, sizeBytes: of.size, ...more };
}

void describe("parseManifest", () => {
  void it("returns the config and the layers of an image", () => {
    assert.deepEqual(parsed({ ...image, mediaType: OCI_MANIFEST }), {
      ok: true,
      kind: "image",
      mediaType: OCI_MANIFEST,
      children: [
        asChild(config, { mediaType: CONFIG, role: "blob", isForeign: false }),
        asChild(layer, { mediaType: LAYER, role: "blob", isForeign: false }),
      ],
      config: config.digest,
      skippedChildren: 0,
      subject: undefined,
    });
  });

  void it("returns the manifests and the subject of an index", () => {
    const subject = descriptor("subject", OCI_MANIFEST);
    const artifactType = "application/x.bundle";
    const document = { ...index, subject, artifactType };
    assert.deepEqual(parsed(document, OCI_INDEX), {
      ok: true,
      kind: "index",
      mediaType: OCI_INDEX,
      children: [
        asChild(child, {
          mediaType: OCI_MANIFEST,
          role: "manifest",
          isForeign: false,
        }),
      ],
      config: undefined,
      skippedChildren: 0,
      subject: subject.digest,
    });
  });

  const types: readonly {
    name: string;
    body: unknown;
    header?: string;
    want: string;
    kind: string;
  }[] = [
    {
      name: "the body before an unknown header",
      body: { ...image, mediaType: DOCKER_MANIFEST },
      header: "text/plain",
      want: DOCKER_MANIFEST,
      kind: "image",
    },
    {
      name: "the header where the body is silent",
      body: index,
      header: `${DOCKER_LIST}; charset=utf-8`,
      want: DOCKER_LIST,
      kind: "index",
    },
    {
      name: "the shape of an image without either",
      body: image,
      want: OCI_MANIFEST,
      kind: "image",
    },
    {
      name: "the shape of an index with a useless header",
      body: index,
      header: "application/json",
      want: OCI_INDEX,
      kind: "index",
    },
    {
      name: "the shape where the body's type is empty",
      body: { ...index, mediaType: "" },
      want: OCI_INDEX,
      kind: "index",
    },
    {
      name: "the shape where the header would break a header",
      body: image,
      header: "text/plain\r\nX-Evil: 1",
      want: OCI_MANIFEST,
      kind: "image",
    },
    {
      name: "schema 1 by its header",
      body: { schemaVersion: 1, fsLayers: [] },
      header: SCHEMA1_SIGNED,
      want: SCHEMA1_SIGNED,
      kind: "schema1",
    },
    {
      name: "schema 1 by its shape",
      body: { schemaVersion: 1, fsLayers: [] },
      header: "application/json",
      want: SCHEMA1,
      kind: "schema1",
    },
    {
      name: "signed schema 1 by its shape",
      body: { schemaVersion: 1, fsLayers: [], signatures: [] },
      want: SCHEMA1_SIGNED,
      kind: "schema1",
    },
    {
      name: "an unknown type of the body",
      body: { mediaType: "application/vnd.oci.artifact.manifest.v1+json" },
      want: "application/vnd.oci.artifact.manifest.v1+json",
      kind: "opaque",
    },
    {
      name: "an unknown type of the header",
      body: { hello: "world" },
      header: "application/vnd.example.manifest+json",
      want: "application/vnd.example.manifest+json",
      kind: "opaque",
    },
  ];
  for (const { name, body, header, want, kind } of types) {
    void it(`derives the media type of ${name}`, () => {
      const manifest = parsed(body, header);
      assert.deepEqual([manifest.mediaType, manifest.kind], [want, kind]);
    });
  }

  const faults: readonly {
    name: string;
    body: unknown;
    header?: string;
    want: ManifestFault["reason"];
  }[] = [
    { name: "nothing", body: "", want: "malformed" },
    { name: "no JSON", body: "<html>", want: "malformed" },
    { name: "half a manifest", body: '{"schemaVersion":2', want: "malformed" },
    { name: "a list", body: [image], want: "malformed" },
    { name: "a byte order mark", body: "\ufeff{}", want: "malformed" },
    {
      name: "a log-in page in JSON",
      body: { errors: [] },
      header: "application/json",
      want: "malformed",
    },
    {
      name: "a mediaType that is a number",
      body: { ...image, mediaType: 1 },
      want: "malformed",
    },
    {
      name: "a mediaType that would break a header",
      body: { ...image, mediaType: "a/b\r\nX-Evil: 1" },
      want: "malformed",
    },
    {
      name: "layers that are no list",
      body: { ...image, layers: {} },
      want: "malformed",
    },
    {
      name: "a layer that is no object",
      body: { ...image, layers: [[]] },
      want: "malformed",
    },
    {
      name: "a layer that is null",
      body: { ...image, layers: [null] },
      want: "malformed",
    },
    {
      name: "a config that is a text",
      body: { ...image, config: "x" },
      want: "malformed",
    },
    {
      name: "a subject that is a text",
      body: { ...image, subject: "x" },
      want: "malformed",
    },
    {
      name: "a layer without a digest",
      body: { ...image, layers: [{ size: 1 }] },
      want: "malformed",
    },
    {
      name: "a digest that is a list",
      body: { ...image, layers: [{ ...layer, digest: [layer.digest] }] },
      want: "malformed",
    },
    ...["-1", "1e400", "9007199254740993", "1.5", '"1"', "null", "[]"].map(
      (size) => ({
        name: `a size of ${size}`,
        body: `{"layers":[{"digest":"${layer.digest}","size":${size}}]}`,
        want: "malformed" as const,
      }),
    ),
    {
      name: "32 levels and one",
      body: `{"layers":${"[".repeat(32)}${"]".repeat(32)}}`,
      want: "too-complex",
    },
    {
      name: "100 000 levels",
      body: `${"[".repeat(100_000)}${"]".repeat(100_000)}`,
      want: "too-complex",
    },
    {
      name: "4 MiB of open brackets",
      body: "[".repeat(4_194_304),
      want: "too-complex",
    },
    {
      name: "4 MiB of empty objects",
      body: `{"x":[${"{},".repeat(1_398_000)}{}]}`,
      want: "too-complex",
    },
    {
      name: "annotations by the ten thousand",
      body: {
        ...image,
        annotations: Object.fromEntries(
          Array.from({ length: 10_000 }, (_, at) => [`${at}`, "x"]),
        ),
      },
      want: "too-complex",
    },
    { name: "nothing but colons", body: ":".repeat(99), want: "malformed" },
    {
      name: "10 001 layers",
      body: { ...image, layers: Array.from({ length: 10_001 }, () => layer) },
      want: "too-complex",
    },
    {
      name: "layers and manifests",
      body: { ...image, ...index },
      want: "ambiguous",
    },
    {
      name: "manifests and a config",
      body: { ...index, config },
      want: "ambiguous",
    },
    {
      name: "layers and fsLayers",
      body: { ...image, fsLayers: [] },
      want: "ambiguous",
    },
    {
      name: "layers twice",
      body: '{"layers":[],"layers":[]}',
      want: "ambiguous",
    },
    {
      name: "layers twice, once escaped",
      body: '{"layers":[],"\\u006cayers":[]}',
      want: "ambiguous",
    },
    {
      name: "Layers",
      body: '{"config":null,"layers":[],"Layers":[]}',
      want: "ambiguous",
    },
    {
      name: "a key that Go folds to manifests",
      body: { ...image, "manifest\u017f": [] },
      want: "ambiguous",
    },
    {
      name: "a Digest beside a digest",
      body: { ...image, layers: [{ ...layer, Digest: config.digest }] },
      want: "ambiguous",
    },
    {
      name: "another known type in the header",
      body: { ...image, mediaType: OCI_MANIFEST },
      header: DOCKER_MANIFEST,
      want: "media-type",
    },
    {
      name: "an index called an image by its header",
      body: index,
      header: OCI_MANIFEST,
      want: "media-type",
    },
    {
      name: "an image that calls itself an index",
      body: { ...image, mediaType: OCI_INDEX },
      want: "media-type",
    },
    {
      name: "schema 1 called an image",
      body: { fsLayers: [] },
      header: DOCKER_MANIFEST,
      want: "media-type",
    },
    {
      name: "an image called schema 1",
      body: image,
      header: SCHEMA1_SIGNED,
      want: "media-type",
    },
  ];
  for (const { name, body, header, want } of faults) {
    void it(`rejects ${name} as ${want}`, () => {
      const manifest = parse(body, header);
      assert(!manifest.ok);
      assert.equal(manifest.reason, want);
      assert.match(manifest.detail, /^[a-zA-Z' -]+$/);
    });
  }

  void it("treats null as absent, as Go writes it", () => {
    const nulls = { ...index, config: null, layers: null, subject: null };
    assert.equal(parsed(nulls).children.length, 1);
    const empty = { mediaType: OCI_INDEX, manifests: null };
    assert.deepEqual(parsed(empty).children, []);
  });

  void it("skips a child of an unknown algorithm and keeps the rest", () => {
    const blake3 = { ...layer, digest: `blake3:${"0".repeat(64)}` };
    const manifest = parsed({ ...image, layers: [blake3, layer] });
    assert.equal(manifest.skippedChildren, 1);
    assert.deepEqual(
      manifest.children.map(({ digest }) => digest),
      [config.digest, layer.digest],
    );
    const { subject } = parsed({ ...image, subject: blake3 });
    assert.equal(subject, undefined);
  });

  void it("reads sha512 children", () => {
    const digest = digestOf(Buffer.from("layer"), "sha512");
    const manifest = parsed({ layers: [{ ...layer, digest }] });
    assert.equal(manifest.children[0]?.digest, digest);
  });

  void it("marks layers that engines fetch elsewhere as foreign, and only layers", () => {
    const urls = ["https://example.com/layer"];
    const foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    const manifest = parsed({
      config: descriptor("c", CONFIG, { urls }),
      layers: [
        descriptor("with urls", LAYER, { urls }),
        descriptor("by type", foreign),
        descriptor("empty urls", LAYER, { urls: [] }),
        descriptor("odd urls", LAYER, { urls: "x" }),
      ],
    });
    assert.deepEqual(
      manifest.children.map(({ isForeign }) => isForeign),
      [false, true, true, false, false],
    );
  });

  void it("lists a digest once, as foreign only if every entry is", () => {
    const urls = ["https://example.com/layer"];
    const manifest = parsed({
      layers: [{ ...layer, urls }, layer, { ...layer, urls }],
    });
    assert.deepEqual(manifest.children, [
      asChild(layer, { mediaType: LAYER, role: "blob", isForeign: false }),
    ]);
  });

  void it("treats layers that BuildKit puts into an index as blobs", () => {
    const manifest = parsed({
      manifests: [
        layer,
        descriptor("x", "application/vnd.buildkit.cacheconfig.v0"),
        descriptor("y", undefined),
        descriptor("z", "not a type"),
      ],
    });
    assert.deepEqual(
      manifest.children.map(({ role, mediaType }) => [role, mediaType]),
      [
        ["blob", LAYER],
        ["blob", "application/vnd.buildkit.cacheconfig.v0"],
        ["manifest", OCTET_STREAM],
        ["manifest", OCTET_STREAM],
      ],
    );
  });

  void it("accepts a manifest with a key named ok", () => {
    assert.equal(parsed({ ok: false, ...image }).children.length, 2);
    assert.equal(
      parsed({ ...image, layers: [{ ...layer, ok: false }] }).children.length,
      2,
    );
  });

  void it("ignores keys with a meaning in JavaScript, as __proto__", () => {
    const body = `{"__proto__":{"layers":[1]},"constructor":1,"manifests":[{"__proto__":{"urls":[1]},"digest":"${child.digest}","size":5}]}`;
    const manifest = parsed(body);
    assert.equal(manifest.kind, "index");
    assert.equal(manifest.children.length, 1);
    assert.equal(Object.getPrototypeOf(manifest.children[0]), Object.prototype);
  });

  void it("accepts every manifest that a lenient registry stores", () => {
    const annotations = { "org.example.a": "x", "org.example.b": "y" };
    const platform = { architecture: "amd64", os: "linux", variant: "v8" };
    const manifests = Array.from({ length: 10_000 }, (_, at) =>
      descriptor(`${at}`, OCI_MANIFEST, { annotations, platform }),
    );
    const manifest = parsed({ mediaType: OCI_INDEX, manifests });
    assert.equal(manifest.children.length, 10_000);
  });

  void it("never throws, and returns safe sizes and types that are valid in a header", () => {
    const sizes = fc.oneof(fc.nat(), fc.double(), fc.constant("1"));
    const part = fc.record(
      {
        digest: fc.oneof(fc.constant(layer.digest), fc.string()),
        size: sizes,
        mediaType: fc.oneof(fc.constant(LAYER), fc.string()),
        urls: fc.jsonValue(),
      },
      { requiredKeys: [] },
    );
    const parts = fc.oneof(fc.array(part), fc.jsonValue());
    const body = fc.record(
      {
        mediaType: fc.oneof(
          fc.constantFrom(OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST),
          fc.string({ unit: "binary" }),
        ),
        config: fc.oneof(part, fc.jsonValue()),
        layers: parts,
        manifests: parts,
        subject: fc.oneof(part, fc.jsonValue()),
        artifactType: fc.jsonValue(),
      },
      { requiredKeys: [] },
    );
    const texts = fc.oneof(
      body.map((value) => JSON.stringify(value)),
      fc.string({ unit: "binary" }),
    );
    const headers = fc.option(
      fc.oneof(fc.constantFrom(OCI_INDEX, "text/html"), fc.string()),
      { nil: undefined },
    );
    fc.assert(
      fc.property(texts, headers, (text, header) => {
        const manifest = parse(text, header);
        if (!manifest.ok) return;
        assert(isMediaType(manifest.mediaType));
        for (const { sizeBytes, mediaType } of manifest.children) {
          assert(Number.isSafeInteger(sizeBytes) && sizeBytes >= 0);
          assert(isMediaType(mediaType));
        }
      }),
      { numRuns: 2000 },
    );
  });
});
