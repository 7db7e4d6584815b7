import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import {
  DOCKER_LIST,
  DOCKER_MANIFEST,
  isBlobInIndex,
  isForeignLayer,
  isImageManifest,
  isIndex,
  isKnownManifestType,
  isMediaType,
  isSchema1,
  OCI_INDEX,
  OCI_MANIFEST,
  parseContentType,
  SCHEMA1,
  SCHEMA1_SIGNED,
  UPSTREAM_ACCEPT,
} from "../../../src/oci/media-type.ts";

void describe("manifest media types", () => {
  const types: readonly [type: string, is: readonly boolean[]][] = [
    [OCI_INDEX, [true, false, false]],
    [DOCKER_LIST, [true, false, false]],
    [OCI_MANIFEST, [false, true, false]],
    [DOCKER_MANIFEST, [false, true, false]],
    [SCHEMA1, [false, false, true]],
    [SCHEMA1_SIGNED, [false, false, true]],
    ["application/json", [false, false, false]],
    ["__proto__", [false, false, false]],
  ];
  for (const [type, want] of types) {
    void it(`classifies ${type}`, () => {
      const is = [isIndex(type), isImageManifest(type), isSchema1(type)];
      assert.deepEqual(is, want);
      assert.equal(isKnownManifestType(type), want.includes(true));
    });
  }

  void it("requests the four types that can be stored first, and any other last", () => {
    assert.equal(
      UPSTREAM_ACCEPT,
      "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, " +
        "application/vnd.docker.distribution.manifest.list.v2+json, " +
        "application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1",
    );
  });

  void it("recognises foreign layers, and blobs in an index", () => {
    const foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    const plain = "application/vnd.oci.image.layer.v1.tar+gzip";
    assert(isForeignLayer(foreign));
    assert(
      isForeignLayer(
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
      ),
    );
    assert(!isForeignLayer(plain));
    assert(isBlobInIndex(plain));
    assert(isBlobInIndex("application/vnd.buildkit.cacheconfig.v0"));
    assert(!isBlobInIndex(OCI_MANIFEST));
    assert(!isBlobInIndex("application/vnd.oci.artifact.manifest.v1+json"));
  });
});

void describe("parseContentType", () => {
  const cases: readonly [
    input: string | undefined,
    want: string | undefined,
  ][] = [
    [undefined, undefined],
    ["", undefined],
    [OCI_INDEX, OCI_INDEX],
    [`${OCI_INDEX}; charset=utf-8`, OCI_INDEX],
    [` ${OCI_INDEX.toUpperCase()}\t;x`, OCI_INDEX],
    ["text/html", "text/html"],
    ["text", undefined],
    ["text/", undefined],
    ["/html", undefined],
    ["text/html, text/plain", undefined],
    ["text/html\r\nX-Evil: 1", undefined],
    ["text/html; a=\r\nX-Evil: 1", undefined],
    ["text/html\0", undefined],
    ["text/h\u00e4tml", undefined],
    [`text/${"x".repeat(127)}`, `text/${"x".repeat(127)}`],
    [`text/${"x".repeat(128)}`, undefined],
    [`text/html;${"x".repeat(10_240)}`, undefined],
    ["*/*", undefined],
  ];
  for (const [input, want] of cases) {
    void it(`reads ${JSON.stringify(input)?.slice(0, 60)}`, () => {
      assert.equal(parseContentType(input), want);
    });
  }

  void it("returns a bare lower-case media type or undefined, idempotently", () => {
    const anything = fc.oneof(
      fc.string({ unit: "binary" }),
      fc
        .tuple(fc.constantFrom("text/html", OCI_INDEX), fc.string())
        .map(([type, tail]) => `${type};${tail}`),
    );
    fc.assert(
      fc.property(anything, (text) => {
        const type = parseContentType(text);
        if (type === undefined) return;
        assert(isMediaType(type));
        assert.equal(type, type.toLowerCase());
        assert.equal(parseContentType(type), type);
      }),
    );
  });
});
