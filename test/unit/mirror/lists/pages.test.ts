import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { cutPage } from "../../../../src/mirror/lists/pages.ts";

const LIST = ["a", "b", "d", "e"];

void describe("a page of a sorted list", () => {
  for (const [name, n, last, entries, nextLast] of [
    ["is all of it without bounds", undefined, undefined, LIST, undefined],
    ["begins with the first", 2, undefined, ["a", "b"], "b"],
    ["goes on after last", 2, "b", ["d", "e"], undefined],
    ["goes on after a last that is not there", 1, "c", ["d"], "d"],
    ["begins with the first after a last before it", 1, "A", ["a"], "a"],
    ["is empty after the end", 2, "e", [], undefined],
    ["is empty where none is wanted", 0, "a", [], undefined],
    ["is the rest without n", undefined, "a", ["b", "d", "e"], undefined],
  ] as const) {
    void it(name, () => {
      assert.deepEqual(cutPage(LIST, { n, last }), { entries, nextLast });
    });
  }

  void it("has a next page at the end of an incomplete list", () => {
    assert.equal(cutPage(LIST, { n: 9, last: "a" }, false).nextLast, "e");
  });

  void it("reads few more entries than it returns, of 700 000", () => {
    const tags = Array.from(
      { length: 700_000 },
      (_, at) => `v${String(at).padStart(7, "0")}`,
    );
    let reads = 0;
    const counted = new Proxy(tags, {
      get(target, name, receiver) {
        if (typeof name === "string" && /^\d+$/.test(name)) reads += 1;
        return Reflect.get(target, name, receiver) as unknown;
      },
    });
    const page = cutPage(counted, { n: 100, last: "v0349999" });
    assert.equal(page.entries[0], "v0350000");
    assert.equal(page.nextLast, "v0350099");
    assert.ok(reads < 150, `${reads} entries were read`);
  });
});
