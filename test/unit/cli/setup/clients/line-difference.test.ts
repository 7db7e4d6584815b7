import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { lineDifference } from "../../../../../src/cli/setup/clients/line-difference.ts";

void test("a difference of lines shows what stays, goes and comes", () => {
  assert.deepEqual(lineDifference("a\nb\nc\n", "a\nx\nc\nd\n"), [
    " a",
    "-b",
    "+x",
    " c",
    "+d",
  ]);
  assert.deepEqual(lineDifference("", "a\n"), ["+a"]);
  assert.deepEqual(lineDifference("a\n", ""), ["-a"]);
});

void test("a difference of lines holds both texts, and no line twice that both have", () => {
  const text = fc
    .array(fc.constantFrom("a", "b", "c", ""), { maxLength: 12 })
    .map((lines) => lines.map((line) => `${line}\n`).join(""));
  fc.assert(
    fc.property(text, text, (from, to) => {
      const lines = lineDifference(from, to);
      const side = (mark: string): string =>
        lines
          .filter((line) => line.startsWith(mark) || line.startsWith(" "))
          .map((line) => `${line.slice(1)}\n`)
          .join("");
      assert.equal(side("-"), from);
      assert.equal(side("+"), to);
      if (from === to) assert.ok(lines.every((line) => line.startsWith(" ")));
    }),
  );
});

void test("a difference of very long texts takes one after the other", () => {
  const long = "x\n".repeat(3_000);
  const lines = lineDifference(long, long);
  assert.equal(lines.length, 6_000);
});
