import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { formatNextLink, parseNextLink } from "../../../src/oci/link.ts";

void describe("parseNextLink", () => {
  const found: readonly [name: string, header: string, want: string][] = [
    [
      "a relative target",
      '</v2/a/tags/list?n=2&last=b>; rel="next"',
      "/v2/a/tags/list?n=2&last=b",
    ],
    [
      "Quay's absolute one",
      '<https://quay.io/v2/a/tags/list?n=50&next_page=gAAA%3D%3D>; rel="next"',
      "https://quay.io/v2/a/tags/list?n=50&next_page=gAAA%3D%3D",
    ],
    ["a relation without quotes", "</x>; rel=next", "/x"],
    ["no spaces", '</x>;rel="next"', "/x"],
    ["many spaces", '  </x> ;\trel = "next" ', "/x"],
    ["another case", '</x>; REL="NEXT"', "/x"],
    ["one relation of several", '</x>; rel="prev next"', "/x"],
    ["other parameters", '</x>; title="a"; rel="next"; type=text', "/x"],
    ["a second link", '</a>; rel="prev", </x>; rel="next"', "/x"],
    ["the first of two", '</x>; rel="next", </y>; rel="next"', "/x"],
    [
      "a title that looks like a link",
      '</a>; title="</b>; rel=\\"next\\", <c>; rel=next"; rel="prev", </x>; rel="next"',
      "/x",
    ],
    [
      "a target with a comma and a semicolon",
      '</x?a=1,2;3>; rel="next"',
      "/x?a=1,2;3",
    ],
    ["the first of two relations", '</x>; rel="next"; rel="prev"', "/x"],
  ];
  for (const [name, header, want] of found) {
    void it(`finds ${name}`, () => {
      assert.equal(parseNextLink(header), want);
    });
  }

  const nothing: readonly [name: string, header: string | undefined][] = [
    ["no header", undefined],
    ["an empty one", ""],
    ["another relation", '</x>; rel="prev"'],
    ["no relation", "</x>"],
    ["a relation that only starts so", '</x>; rel="nextish"'],
    ["a second relation that is to be ignored", '</x>; rel="prev"; rel="next"'],
    ["a parameter that only ends so", '</x>; xrel="next"'],
    ["no brackets", '/x; rel="next"'],
    ["an open bracket", '</x; rel="next"'],
    ["an empty target", '<>; rel="next"'],
    ["a target with a space", '</x y>; rel="next"'],
    ["a target with a line break", '</x\r\nX-Evil: 1>; rel="next"'],
    ["a target beyond ASCII", '</\u00e4>; rel="next"'],
    ["a title that says next", '</x>; title="rel=next"'],
    ["one that is too long", `</${"x".repeat(16_384)}>; rel="next"`],
  ];
  for (const [name, header] of nothing) {
    void it(`finds nothing in ${name}`, () => {
      assert.equal(parseNextLink(header), undefined);
    });
  }

  void it("reads the output of formatNextLink, also between other links", () => {
    const target = fc.stringMatching(/^[!-;=?-~]{1,60}$/);
    fc.assert(
      fc.property(target, target, (wanted, other) => {
        const link = formatNextLink(wanted);
        assert.equal(parseNextLink(link), wanted);
        assert.equal(parseNextLink(`<${other}>; rel="prev", ${link}`), wanted);
      }),
    );
  });

  void it("terminates on any input", () => {
    const piece = fc.constantFrom(
      "<",
      ">",
      ";",
      ",",
      '"',
      "\\",
      "rel=next",
      " ",
      "=",
      "x",
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
        const target = parseNextLink(pieces.join(""));
        assert(target === undefined || /^[!-~]+$/.test(target));
      }),
      { numRuns: 2000 },
    );
    for (const unit of ["<", ">", ";", '"', "<>", "<>;", "<>,", "\\", " "]) {
      assert.equal(parseNextLink(unit.repeat(16_384 / unit.length)), undefined);
    }
  });
});
