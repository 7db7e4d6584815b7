import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseSemverConstraint } from "../../../../src/images/lists/semver-constraint.ts";

/** @returns the tags that the constraint selects, or its fault */
function select(constraint: string, tags: readonly string[]): string {
  const parsed = parseSemverConstraint(constraint);
  return parsed.ok ? tags.filter(parsed.selects).join(" ") : parsed.reason;
}

const TAGS = [
  ..."0.0.0 0.0.3 0.0.4 0.1.0 0.2.2 0.2.3 0.3.0".split(" "),
  ..."1.0.0 1.2.0 1.2.3 1.2.4 1.3.0 1.4.5 1.4.6".split(" "),
  ..."2.0.0 2.3.4 2.4.0 3.0.0 3.1.0 4.2.3 4.5.0 11.1.0 12.0.0 13.0.0-rc.1".split(
    " ",
  ),
];

void describe("semver constraints", () => {
  /** Those that the library's README explains, and what it says they are equivalent to. */
  const EQUIVALENT: readonly (readonly [string, string])[] = [
    [">= 1.2 < 3.0.0 || >= 4.2.3", ">=1.2, <3.0.0 || >=4.2.3"],
    ["1.2 - 1.4.5", ">= 1.2 <= 1.4.5"],
    ["2.3.4 - 4.5", ">= 2.3.4 <= 4.5"],
    ["1.2.x", ">= 1.2.0, < 1.3.0"],
    [">= 1.2.x", ">= 1.2.0"],
    ["<= 2.x", "< 3"],
    ["*", ">= 0.0.0"],
    ["~1.2.3", ">= 1.2.3, < 1.3.0"],
    ["~1", ">= 1, < 2"],
    ["~2.3", ">= 2.3, < 2.4"],
    ["~1.2.x", ">= 1.2.0, < 1.3.0"],
    ["~1.x", ">= 1, < 2"],
    ["^1.2.3", ">= 1.2.3, < 2.0.0"],
    ["^1.2.x", ">= 1.2.0, < 2.0.0"],
    ["^2.3", ">= 2.3, < 3"],
    ["^2.x", ">= 2.0.0, < 3"],
    ["^0.2.3", ">=0.2.3 <0.3.0"],
    ["^0.2", ">=0.2.0 <0.3.0"],
    ["^0.0.3", ">=0.0.3 <0.0.4"],
    ["^0.0", ">=0.0.0 <0.1.0"],
    ["^0", ">=0.0.0 <1.0.0"],
    ["=> 2.0.0", ">= 2.0.0"],
    ["=< 2.0.0", "<= 2.0.0"],
    ["~> 1.2.3", "~1.2.3"],
    ["= 1.2.3", "1.2.3"],
    ["v1.2.3", "1.2.3"],
    ["01.02.03", "1.2.3"],
  ];
  for (const [constraint, want] of EQUIVALENT) {
    void it(`selects the same by ${constraint} and ${want}`, () => {
      const selected = select(constraint, TAGS);
      assert.equal(selected, select(want, TAGS));
      assert.notEqual(selected, "");
      assert.notEqual(selected, TAGS.join(" "), "nothing was left out");
    });
  }

  const CASES: readonly {
    readonly constraint: string;
    readonly tags: string;
    readonly want: string;
  }[] = [
    { constraint: "!=1.2", tags: "1.2 1.2.3 1.3 2.0", want: "1.3 2.0" },
    { constraint: "!=1", tags: "0.9 1.2.3 2.0", want: "0.9 2.0" },
    { constraint: "!=1.2.3", tags: "1.2.2 1.2.3", want: "1.2.2" },
    { constraint: "!=*", tags: "0.0.0 0.0.1 1.0.0", want: "0.0.1 1.0.0" },
    { constraint: ">1", tags: "1.0.0 1.9.9 2.0.0", want: "2.0.0" },
    { constraint: ">11.1", tags: "11.1.1 11.2.0 12.0", want: "11.2.0 12.0" },
    { constraint: "<1.2", tags: "1.1.9 1.2.0", want: "1.1.9" },
    { constraint: "<=1.2", tags: "1.2.9 1.3.0", want: "1.2.9" },
    { constraint: "<=*", tags: "0.0.9 0.1.0", want: "0.0.9" },
    { constraint: ">=1,<3,!=2", tags: "1.1 2.1 3.0", want: "1.1" },
    { constraint: "1.1 || 3", tags: "1.1 2.1 3.0", want: "1.1 3.0" },
    { constraint: "1.1||3", tags: "1.1 2.1 3.0", want: "1.1 3.0" },
    {
      constraint: ">=3.12",
      tags: "3 3.12 v3.13 03.14 3.14.1.1 latest 3.15-alpine edge-3.16 3.17+x",
      want: "3.12 v3.13 03.14 3.17+x",
    },
    {
      constraint: ">=1.0.0-0",
      tags: "0.9.9-rc.1 1.0.0-rc.1 1.0.0 1.1.0-alpine 2.0.0-beta",
      want: "1.0.0-rc.1 1.0.0 1.1.0-alpine 2.0.0-beta",
    },
    {
      // A prerelease counts for its own group only.
      constraint: ">=2.0.0-0 || 1.x",
      tags: "1.1.0-rc 1.1.0 2.0.0-rc",
      want: "1.1.0 2.0.0-rc",
    },
    {
      constraint: ">=1.0.0-alpha.2 <1.0.0",
      tags: "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.2 1.0.0-alpha.10 1.0.0-alpha.beta 1.0.0-beta",
      want: "1.0.0-alpha.2 1.0.0-alpha.10 1.0.0-alpha.beta 1.0.0-beta",
    },
    // Without spaces the hyphen begins a prerelease.
    { constraint: "1.2-1.4.5", tags: "1.2.0-1.4.5 1.3.0", want: "1.2.0-1.4.5" },
    {
      constraint: ">=20240101000000000",
      tags: "20240101000000001 20240100999999999 99999999999999999999",
      want: "20240101000000001",
    },
    { constraint: "1.0.0-01", tags: "1.0.0", want: "fault" },
    { constraint: "", tags: "1.0.0", want: "fault" },
    { constraint: "latest", tags: "latest", want: "fault" },
    { constraint: ">=1.0 and <2", tags: "1.0.0", want: "fault" },
    { constraint: "1.0 |2", tags: "1.0.0", want: "fault" },
    { constraint: "1|2", tags: "1.0.0", want: "fault" },
    { constraint: "||1.0", tags: "1.0.0", want: "fault" },
    { constraint: "1.0,", tags: "1.0.0", want: "fault" },
    { constraint: "1.0.0.0", tags: "1.0.0", want: "fault" },
    { constraint: ">=99999999999999999999", tags: "1.0.0", want: "fault" },
    { constraint: `1${" ".repeat(512)}`, tags: "1.0.0", want: "fault" },
    {
      constraint: Array.from({ length: 33 }, () => "1").join("||"),
      tags: "1.0.0",
      want: "fault",
    },
  ];
  for (const { constraint, tags, want } of CASES) {
    void it(`selects ${want === "" ? "nothing" : want} by ${constraint.slice(0, 40)}`, () => {
      const selected = select(constraint, tags.split(" "));
      if (want === "fault") assert.match(selected, /^got .*; expected /);
      else assert.equal(selected, want);
    });
  }

  void it("answers a constraint in linear time that a backtracking engine would not", () => {
    assert.match(select(`${"1  ".repeat(150)}!`, []), /^got /);
  });
});
