import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseTagRegex } from "../../../../src/images/lists/tag-regex.ts";

const TAGS = "1.13.0 1.13.1-alpine a A aa v1 V2 latest a-b _ 1_2".split(" ");

/** Patterns of RE2's documentation; those marked `js` mean something else to JavaScript, or nothing. */
const CASES: readonly {
  readonly pattern: string;
  readonly want: string;
  readonly js?: true;
}[] = [
  { pattern: "^1\\.13\\.[12]-alpine$", want: "1.13.1-alpine" },
  { pattern: "13", want: "1.13.0 1.13.1-alpine" },
  { pattern: "^a", want: "a aa a-b" },
  { pattern: "a$", want: "a aa" },
  { pattern: "^(?:v|V)\\d+$", want: "v1 V2" },
  { pattern: "(?i)^a+$", want: "a A aa", js: true },
  { pattern: "(?i:A)b|-(?i:B)", want: "a-b" },
  { pattern: "\\Aa\\z", want: "a", js: true },
  {
    pattern: "^[[:digit:]]+[[:punct:]]",
    want: "1.13.0 1.13.1-alpine 1_2",
    js: true,
  },
  { pattern: "^[[:^alpha:]]+$", want: "1.13.0 _ 1_2", js: true },
  { pattern: "^\\pL+$", want: "a A aa latest", js: true },
  { pattern: "^\\p{Lu}", want: "A V2", js: true },
  { pattern: "^\\Q1.13.0\\E$", want: "1.13.0", js: true },
  { pattern: "^(?P<major>\\d)_", want: "1_2", js: true },
  { pattern: "^(?<major>\\d)_", want: "1_2" },
  { pattern: "(?U)^a+$", want: "a aa", js: true },
  { pattern: "(?s)^.$", want: "a A _" },
  { pattern: "^\\x{61}$", want: "a", js: true },
  { pattern: "^a{1,2}$", want: "a aa" },
  { pattern: "^a{,2}$", want: "" },
  { pattern: "\\bb", want: "a-b" },
  { pattern: "", want: TAGS.join(" ") },
];

const REFUSED: readonly (readonly [string, string])[] = [
  ["a(?=b)", "invalid or unsupported Perl syntax: `(?=`"],
  ["(?!a)", "invalid or unsupported Perl syntax: `(?!`"],
  ["(?<=a)b", "invalid named capture: `(?<=a)b`"],
  ["(a)\\1", "invalid escape sequence: `\\1`"],
  ["a\\Z", "invalid escape sequence: `\\Z`"],
  ["a\\h", "invalid escape sequence: `\\h`"],
  ["a++", "invalid nested repetition operator: `++`"],
  ["*a", "missing argument to repetition operator: `*`"],
  ["a{1001}", "invalid repeat count: `{1001}`"],
  ["(", "missing closing ): `(`"],
  ["a)", "unexpected )"],
  ["[a", "missing closing ]: `[a`"],
  ["[z-a]", "invalid character class range: `z-a`"],
  // Go allows it; the names mean nothing here.
  ["(?P<n>a)(?P<n>b)", "duplicate capture group name"],
];

void describe("patterns of tags", () => {
  for (const { pattern, want, js } of CASES) {
    void it(`select ${want === "" ? "nothing" : want} by ${pattern}`, () => {
      const parsed = parseTagRegex(pattern);
      assert(parsed.ok, JSON.stringify(parsed));
      assert.equal(TAGS.filter(parsed.selects).join(" "), want);
      if (js === true) assert.notEqual(selectByJavaScript(pattern), want);
    });
  }

  for (const [pattern, reason] of REFUSED) {
    void it(`refuse ${pattern}`, () => {
      const parsed = parseTagRegex(pattern);
      assert(!parsed.ok);
      assert.ok(parsed.reason.includes(reason), parsed.reason);
      assert.match(parsed.reason, /expected the syntax of RE2$/);
    });
  }

  void it("refuse a pattern that is too long", () => {
    const parsed = parseTagRegex("a".repeat(4_097));
    assert.deepEqual(parsed, {
      ok: false,
      reason: "got a pattern of 4097 characters; expected at most 4096",
    });
    assert.ok(parseTagRegex("a".repeat(4_096)).ok);
  });

  void it("match in linear time what takes exponential time elsewhere", () => {
    const parsed = parseTagRegex("^(a+)+$");
    assert(parsed.ok);
    assert.equal(parsed.selects(`${"a".repeat(127)}!`), false);
  });
});

function selectByJavaScript(pattern: string): string | undefined {
  try {
    return TAGS.filter((tag) => new RegExp(pattern).test(tag)).join(" ");
  } catch {
    return undefined;
  }
}
