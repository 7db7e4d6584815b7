import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isRedirect, judgeRedirect } from "../../../src/wire/redirect.ts";

const FROM = new URL("https://reg.example/v2/a/blobs/sha256:0?x=1");
const PLAIN = new URL("http://reg.example/v2/a/blobs/sha256:0");

const FOLLOWED: readonly (readonly [URL, string, string])[] = [
  [FROM, "https://cdn.example/b?sig=1#part", "https://cdn.example/b?sig=1"],
  [FROM, "/other?y=2", "https://reg.example/other?y=2"],
  [FROM, "?y=2", "https://reg.example/v2/a/blobs/sha256:0?y=2"],
  [FROM, "//cdn.example/b", "https://cdn.example/b"],
  [FROM, "https://reg.example:8443/b", "https://reg.example:8443/b"],
  [PLAIN, "http://cdn.example/b", "http://cdn.example/b"],
  [PLAIN, "https://cdn.example/b", "https://cdn.example/b"],
];

const REFUSED: readonly (readonly [URL, string | undefined])[] = [
  [FROM, undefined],
  [FROM, ""],
  [FROM, "https://"],
  [FROM, "https://exa mple/"],
  [FROM, "http://reg.example/b?sig=secret"],
  [FROM, "http://cdn.example/b?sig=secret"],
  [FROM, "file:///etc/passwd?sig=secret"],
  [FROM, "javascript:alert(1)"],
  [FROM, "https://user:secret@cdn.example/b"],
];

void describe("judgeRedirect", () => {
  for (const [from, location, want] of FOLLOWED) {
    void it(`follows ${location} from ${from.origin}`, () => {
      const verdict = judgeRedirect(from, location);
      assert.ok("target" in verdict, JSON.stringify(verdict));
      assert.equal(verdict.target.href, want);
    });
  }
  for (const [from, location] of REFUSED) {
    void it(`refuses ${location}, and keeps its query to itself`, () => {
      const verdict = judgeRedirect(from, location);
      assert.ok("refusal" in verdict, JSON.stringify(verdict));
      assert.doesNotMatch(verdict.refusal, /secret/);
    });
  }
});

void describe("isRedirect", () => {
  void it("recognises the five redirect statuses", () => {
    const all = Array.from({ length: 100 }, (_, at) => 300 + at);
    assert.deepEqual(all.filter(isRedirect), [301, 302, 303, 307, 308]);
  });
});
