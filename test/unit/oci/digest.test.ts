import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import {
  createDigestHash,
  DIGEST_ALGORITHMS,
  digestAlgorithm,
  digestHex,
  digestOf,
  digestSoFar,
  parseDigest,
} from "../../../src/oci/digest.ts";

const EMPTY =
  "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

void describe("parseDigest", () => {
  void it("accepts the digests of its own hashers, and splits them", () => {
    const algorithms = fc.constantFrom(...DIGEST_ALGORITHMS);
    fc.assert(
      fc.property(fc.uint8Array(), algorithms, (bytes, algorithm) => {
        const digest = digestOf(bytes, algorithm);
        const hex = createHash(algorithm).update(bytes).digest("hex");
        assert.equal(parseDigest(digest), `${algorithm}:${hex}`);
        assert.equal(digestAlgorithm(digest), algorithm);
        assert.equal(digestHex(digest), hex);
      }),
    );
  });

  const hex = digestHex(digestOf(Buffer.alloc(0)));
  const illegal = [
    "",
    "sha256",
    "sha256:",
    hex,
    `sha256:${hex.toUpperCase()}`,
    `SHA256:${hex}`,
    `sha256:${hex.slice(1)}`,
    `sha256:${hex}0`,
    `sha256:${hex}\n`,
    ` sha256:${hex}`,
    `sha256:${hex.slice(1)}g`,
    `sha512:${hex}`,
    `sha256:${hex}${hex}`,
    `sha1:${hex.slice(0, 40)}`,
    `sha384:${hex}${hex.slice(0, 32)}`,
    `blake3:${hex}`,
    `sha256-${hex}`,
    `sha256+b64:${hex}`,
    "sha256:../../../../etc/passwd",
    `__proto__:${hex}`,
  ];
  for (const text of illegal) {
    void it(`rejects ${JSON.stringify(text).slice(0, 40)} of ${text.length}`, () => {
      assert.equal(parseDigest(text), undefined);
    });
  }
});

void describe("digestSoFar", () => {
  void it("returns the digest so far for input in any pieces, and keeps the hash usable", () => {
    const algorithms = fc.constantFrom(...DIGEST_ALGORITHMS);
    fc.assert(
      fc.property(fc.array(fc.uint8Array()), algorithms, (parts, algorithm) => {
        const hash = createDigestHash(algorithm);
        parts.forEach((part, at) => {
          hash.update(part);
          assert.equal(
            digestSoFar(algorithm, hash),
            digestOf(Buffer.concat(parts.slice(0, at + 1)), algorithm),
          );
        });
      }),
    );
  });

  void it("returns the digest of empty input", () => {
    assert.equal(digestSoFar("sha256", createDigestHash("sha256")), EMPTY);
  });
});
