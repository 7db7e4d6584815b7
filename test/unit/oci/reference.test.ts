import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { digestOf } from "../../../src/oci/digest.ts";
import {
  isSpelledName,
  MAX_REPOSITORY_NAME_LENGTH,
  MAX_SPELLED_NAME_LENGTH,
  parseReference,
  parseRepositoryName,
  parseTag,
  referenceText,
  referrersTag,
} from "../../../src/oci/reference.ts";

/** The grammar again, by another road: split first, then look at each component. */
function isNameByHand(text: string): boolean {
  return text.split("/").every((component) => {
    if (!/^[a-z0-9._-]+$/.test(component)) return false;
    const words = component.split(/[._-]+/);
    const separators = component.split(/[a-z0-9]+/).slice(1, -1);
    return (
      words.every((word) => word !== "") &&
      separators.every(
        (s) => s === "." || s === "_" || s === "__" || /^-+$/.test(s),
      )
    );
  });
}

void describe("parseRepositoryName", () => {
  const legal = [
    "alpine",
    "library/alpine",
    "a/b/c/d/e",
    "0",
    "a.b_c__d-e---f",
    "constructor/prototype",
    "a".repeat(255),
  ];
  for (const text of legal) {
    void it(`accepts ${text.slice(0, 40)}`, () => {
      assert.equal(parseRepositoryName(text), text);
    });
  }
  const illegal = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    "A",
    "library/Alpine",
    "a..b",
    "a___b",
    "a._b",
    "-a",
    "a-",
    "_a",
    "a_",
    ".",
    "..",
    "a/../b",
    "a:b",
    "a b",
    "a\n",
    "\u00e4",
    "\u212a",
    "__proto__",
    "a%2fb",
    "a".repeat(256),
  ];
  for (const text of illegal) {
    void it(`rejects ${JSON.stringify(text).slice(0, 40)}`, () => {
      assert.equal(parseRepositoryName(text), undefined);
    });
  }

  void it("agrees with the grammar of the specification", () => {
    const almost = fc.string({
      unit: fc.constantFrom("a", "0", ".", "_", "__", "-", "/", "A", ":"),
      maxLength: 12,
    });
    fc.assert(
      fc.property(almost, (text) => {
        assert.equal(
          parseRepositoryName(text) !== undefined,
          isNameByHand(text),
        );
        assert.equal(isSpelledName(text), isNameByHand(text));
      }),
      { numRuns: 5000 },
    );
  });

  void it("accepts an upstream's name before a name of maximum length", () => {
    const name = "a".repeat(MAX_REPOSITORY_NAME_LENGTH);
    assert(isSpelledName(`${name}/${name}`));
    assert(!isSpelledName("a".repeat(MAX_SPELLED_NAME_LENGTH + 1)));
  });
});

void describe("parseReference", () => {
  void it("distinguishes digests from tags, and formats both back", () => {
    const digests = fc
      .tuple(fc.uint8Array(), fc.constantFrom("sha256", "sha512"))
      .map(([bytes, algorithm]) => ({
        kind: "digest",
        text: digestOf(bytes, algorithm) as string,
      }));
    const tags = fc
      .stringMatching(/^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/)
      .map((text) => ({ kind: "tag", text }));
    fc.assert(
      fc.property(fc.oneof(digests, tags), ({ kind, text }) => {
        const reference = parseReference(text);
        assert(reference !== undefined);
        assert.equal(reference.kind, kind);
        assert.equal(referenceText(reference), text);
      }),
    );
  });

  for (const text of ["", ".a", "-a", "a b", "a/b", "a:b", "sha256:", "a\n"]) {
    void it(`rejects ${JSON.stringify(text)}`, () => {
      assert.equal(parseReference(text), undefined);
    });
  }

  void it("accepts tags of up to 128 characters", () => {
    assert.equal(parseTag("a".repeat(128)), "a".repeat(128));
    assert.equal(parseTag("a".repeat(129)), undefined);
  });
});

void describe("referrersTag", () => {
  void it("joins the algorithm and the first 64 digits", () => {
    const bytes = Buffer.from("x");
    const sha256 = digestOf(bytes);
    const sha512 = digestOf(bytes, "sha512");
    assert.equal(referrersTag(sha256), sha256.replace(":", "-"));
    assert.equal(referrersTag(sha512), `sha512-${sha512.slice(7, 71)}`);
    assert.equal(parseTag(referrersTag(sha512)), referrersTag(sha512));
  });
});
