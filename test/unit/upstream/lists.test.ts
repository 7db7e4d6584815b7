import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { OCI_INDEX } from "../../../src/oci/media-type.ts";
import {
  isHtml,
  joinReferrers,
  nextPage,
  parseTagsPage,
} from "../../../src/upstream/lists.ts";
import type { Answer } from "../../../src/wire/exchange.ts";
import { upstreamAnswer } from "../../support/upstream-harness.ts";

function listAnswer(headers: Record<string, string>): Answer {
  return upstreamAnswer(200, headers, "https://reg.example/v2/a/tags/list");
}

void describe("parseTagsPage", () => {
  const DIGEST = `sha256:${"a".repeat(64)}`;
  const CASES: readonly (readonly [string, readonly string[] | undefined])[] = [
    ['{"name":"a","tags":["1","2"]}', ["1", "2"]],
    ['{"name":"a","tags":null}', []],
    ['{"tags":[]}', []],
    [`{"tags":["1","${DIGEST}","../x","",null,7,"a b"]}`, ["1"]],
    [`{"tags":["${"x".repeat(128)}","${"x".repeat(129)}"]}`, ["x".repeat(128)]],
    ['{"child":[],"manifest":{"sha256:1":{"tag":["1"]}},"tags":["1"]}', ["1"]],
    ['{"name":"a"}', undefined],
    ['{"tags":{"0":"1"}}', undefined],
    ['["1"]', undefined],
    ["<html>", undefined],
    ["[".repeat(1_000_000), undefined],
    ["", undefined],
  ];
  for (const [body, want] of CASES) {
    void it(`reads ${body.slice(0, 60)}`, () => {
      assert.deepEqual(parseTagsPage(Buffer.from(body)), want);
    });
  }
});

function page(name: string): Buffer {
  const manifests = [{ digest: name, annotations: { a: "b" } }];
  return Buffer.from(JSON.stringify({ manifests }));
}

void describe("joinReferrers", () => {
  void it("keeps the bytes of a single page", () => {
    const only = Buffer.from(' {"schemaVersion": 2, "manifests": []}\n');
    assert.equal(joinReferrers([only]), only);
  });

  void it("joins several pages to one image index", () => {
    const joined = joinReferrers([page("1"), page("2")]);
    assert.deepEqual(JSON.parse(joined?.toString() ?? ""), {
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: [
        { digest: "1", annotations: { a: "b" } },
        { digest: "2", annotations: { a: "b" } },
      ],
    });
  });

  void it("returns undefined for a page that is not an index", () => {
    for (const text of ["{}", "[]", "", '{"manifests":{}}']) {
      assert.equal(joinReferrers([Buffer.from(text)]), undefined);
    }
  });
});

void describe("nextPage", () => {
  const CASES: readonly (readonly [string | undefined, string | undefined])[] =
    [
      [undefined, undefined],
      [
        '</v2/a/tags/list?last=b>; rel="next"',
        "https://reg.example/v2/a/tags/list?last=b",
      ],
      ['<https://reg.example/x?n=1>; rel="next"', "https://reg.example/x?n=1"],
      ['<?last=b>; rel="next"', "https://reg.example/v2/a/tags/list?last=b"],
      ['<http://reg.example/x>; rel="next"', "foreign"],
      ['<https://reg.example:8443/x>; rel="next"', "foreign"],
      ['<//evil.example/x>; rel="next"', "foreign"],
      ['<https://>; rel="next"', "foreign"],
      ['</x>; rel="prev"', undefined],
    ];
  for (const [link, want] of CASES) {
    void it(`reads ${link} as ${want}`, () => {
      const next = nextPage(listAnswer(link === undefined ? {} : { link }));
      assert.equal(next instanceof URL ? next.href : next, want);
    });
  }
});

void describe("isHtml", () => {
  void it("recognises HTML by its media type", () => {
    assert.equal(
      isHtml(listAnswer({ "content-type": "Text/HTML; charset=x" })),
      true,
    );
    assert.equal(isHtml(listAnswer({ "content-type": "text/plain" })), false);
    assert.equal(isHtml(listAnswer({})), false);
  });
});
