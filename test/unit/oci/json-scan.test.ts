import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { scanJson } from "../../../src/oci/json-scan.ts";

const bounds = {
  maxDepth: 1000,
  maxMarks: 100_000,
  maxMembers: 1000,
  maxKeyBytes: 1000,
};

function depthOf(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depthOf));
}

function marksOf(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  const members: unknown[] = Object.values(value);
  const colons = Array.isArray(value) ? 0 : members.length;
  const inner = members.map(marksOf).reduce((sum, n) => sum + n, 0);
  return 1 + Math.max(0, members.length - 1) + colons + inner;
}

void describe("scanJson", () => {
  void it("counts like a parser, for any content of strings and keys", () => {
    const indents = fc.constantFrom(0, 1);
    const values = fc.jsonValue({ stringUnit: "binary", maxDepth: 5 });
    fc.assert(
      fc.property(values, indents, (value, indent) => {
        const text = JSON.stringify(value, undefined, indent);
        const scan = scanJson(Buffer.from(text), bounds);
        const parsed: unknown = JSON.parse(text);
        const isObject =
          typeof parsed === "object" &&
          parsed !== null &&
          !Array.isArray(parsed);
        assert.equal(scan?.depth, depthOf(parsed));
        assert.equal(scan?.marks, marksOf(parsed));
        assert.deepEqual(
          new Set(scan?.topLevelKeys.map((key): unknown => JSON.parse(key))),
          new Set(isObject ? Object.keys(parsed) : []),
        );
      }),
      { numRuns: 1000 },
    );
  });

  void it("returns repeated keys each time, and omits very long keys", () => {
    const long = "x".repeat(1000);
    const text = `{"a":{"b":1},"a" : "c:d","\\u0061":[{"e":1}],"${long}":1}`;
    assert.deepEqual(scanJson(Buffer.from(text), bounds)?.topLevelKeys, [
      '"a"',
      '"a"',
      '"\\u0061"',
    ]);
  });

  void it("returns undefined as soon as a bound is exceeded", () => {
    const tight = {
      maxDepth: 3,
      maxMarks: 10,
      maxMembers: 2,
      maxKeyBytes: 10,
    };
    const scan = (text: string): unknown => scanJson(Buffer.from(text), tight);
    assert(scan("[[[]]]") !== undefined);
    assert.equal(scan("[[[[]]]]"), undefined);
    assert.equal(scan("[".repeat(4_194_304)), undefined);
    assert(scan(`[${"1,".repeat(9)}1]`) !== undefined);
    assert.equal(scan(`[${"1,".repeat(10)}1]`), undefined);
    assert.equal(scan("{},".repeat(11)), undefined);
    assert.equal(scan(":".repeat(4_194_304)), undefined);
    assert(scan('[{"a":1,"b":2},{"c":3}]') !== undefined);
    assert.equal(scan('{"a":1,"b":2,"c":3}'), undefined);
  });

  void it("terminates on bytes that are not JSON", () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        scanJson(bytes, bounds);
      }),
    );
    for (const text of ['"', '"\\', '{"a', '{"a\\"', "]}]}", ":::"]) {
      scanJson(Buffer.from(text), bounds);
    }
  });
});
