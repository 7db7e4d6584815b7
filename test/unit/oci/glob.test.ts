import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { compilePattern } from "../../../src/oci/glob.ts";

/** `a:t` has a tag, `a` has none, as with a digest. */
function covers(pattern: string, text: string): boolean {
  const [repository = "", tag] = text.split(":");
  return compilePattern(pattern)(repository, tag);
}

/** The same language as a regular expression; safe on short texts only. */
function toRegExp(glob: string): RegExp {
  const source = glob
    .split(/(?<=^|\/)(\*\*+\/)|(\*+)/)
    .filter((part) => part !== undefined)
    .map((part) => {
      if (/^\*\*+\/$/.test(part)) return "(?:.*/)?";
      if (part === "*") return "[^/]*";
      return /^\*\*+$/.test(part) ? ".*" : part.replaceAll(".", "\\.");
    });
  return new RegExp(`^${source.join("")}$`);
}

void describe("compilePattern", () => {
  const table: readonly {
    pattern: string;
    yes: readonly string[];
    no: readonly string[];
  }[] = [
    {
      pattern: "library/alpine",
      yes: ["library/alpine", "library/alpine:3"],
      no: ["library/alpine2:3", "alpine:3", "library/alpine/x:3", ""],
    },
    {
      pattern: "library/*",
      yes: ["library/alpine:3", "library/alpine"],
      no: ["library/a/b:3", "library:3", "x/library/a:3"],
    },
    {
      pattern: "*",
      yes: ["alpine:3", "alpine"],
      no: ["library/alpine:3"],
    },
    {
      pattern: "**",
      yes: ["alpine:3", "a/b/c:x", "a/b/c"],
      no: [],
    },
    {
      pattern: "team/**",
      yes: ["team/a:1", "team/a/b/c:1"],
      no: ["team:1", "teams/a:1", "x/team/a:1"],
    },
    {
      pattern: "**/nginx",
      yes: ["nginx:1", "library/nginx:1", "a/b/nginx"],
      no: ["library/xnginx:1", "nginx/x:1"],
    },
    {
      pattern: "a/**/z",
      yes: ["a/z", "a/b/z", "a/b/c/z"],
      no: ["az", "a/bz", "a/b/zz", "ba/z"],
    },
    {
      pattern: "a/**/**/z",
      yes: ["a/z", "a/b/z", "a/b/c/z"],
      no: ["a", "a/z/y"],
    },
    {
      pattern: "a**z",
      yes: ["az", "abz", "a/b/z"],
      no: ["az/y"],
    },
    {
      pattern: "*-dev/**/x*y",
      yes: ["my-dev/xy", "my-dev/a/xay", "-dev/x-y"],
      no: ["my-dev/a/x/y", "a/my-dev/xy"],
    },
    {
      pattern: "**:latest",
      yes: ["alpine:latest", "a/b:latest"],
      no: ["alpine:Latest", "alpine:latest2", "alpine"],
    },
    {
      pattern: "**:*.*.*",
      yes: ["a:3.20.1", "a/b:1.2.3-rc.1", "a:.."],
      no: ["a:3.20", "a:3", "a:latest", "a"],
    },
    {
      pattern: "library/*:v*",
      yes: ["library/x:v1", "library/x:v"],
      no: ["library/x:1", "x:v1", "library/x"],
    },
    {
      pattern: "library/x:",
      yes: [],
      no: ["library/x", "library/x:v"],
    },
    {
      // Of regular expressions nothing means anything here.
      pattern: "a.c/[b]+(x|y)?",
      yes: ["a.c/[b]+(x|y)?"],
      no: ["abc/b", "a.c/bx"],
    },
  ];
  for (const { pattern, yes, no } of table) {
    void it(`${pattern} covers exactly the listed names`, () => {
      for (const text of yes) assert(covers(pattern, text), text);
      for (const text of no) assert(!covers(pattern, text), text);
    });
  }

  void it("does not read the port's colon as a tag", () => {
    const matches = compilePattern("registry.corp:5000/a/*");
    assert(matches("registry.corp:5000/a/b", "1"));
    assert(matches("registry.corp:5000/a/b", undefined));
    const tagged = compilePattern("registry.corp:5000/a/*:1");
    assert(tagged("registry.corp:5000/a/b", "1"));
    assert(!tagged("registry.corp:5000/a/b", "2"));
  });

  void it("agrees with a regular expression", () => {
    const text = fc.string({
      unit: fc.constantFrom("a", "b", "/", "."),
      maxLength: 8,
    });
    const glob = fc.string({
      unit: fc.constantFrom("a", "b", "/", ".", "*", "**", "/**/"),
      maxLength: 6,
    });
    fc.assert(
      fc.property(glob, text, (pattern, name) => {
        const wanted = toRegExp(pattern).test(name);
        assert.equal(compilePattern(pattern)(name, undefined), wanted);
        // A tag has no slash; behind one a colon would be a port's.
        if (!pattern.includes("/")) {
          assert.equal(compilePattern(`x:${pattern}`)("x", name), wanted);
        }
      }),
      { numRuns: 5000 },
    );
  });

  void it("terminates on input that makes a backtracking matcher exponential", () => {
    const name = "a".repeat(511);
    for (const unit of ["*a", "**a", "**/a", "*", "**/", "a*/"]) {
      const matches = compilePattern(`${unit.repeat(60)}!`);
      assert(!matches(name, undefined));
      assert(!matches("a/".repeat(255), undefined));
    }
  });
});
