import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MAX_LIST_BYTES } from "../../../../src/images/lists/parse-list.ts";
import { outlineList } from "../../../support/list-outline.ts";

void describe("limits of lists", () => {
  void it("rejects a list that is too large", () => {
    const list = "a\n".repeat(MAX_LIST_BYTES / 2 + 1);
    assert.deepEqual(outlineList(list).faults, [
      `1 got ${MAX_LIST_BYTES + 2} bytes; expected several lists of at most ${MAX_LIST_BYTES} bytes each`,
    ]);
  });

  void it("reads at most 100 000 images", () => {
    const { entries, faults } = outlineList("a:1\n".repeat(100_002));
    assert.equal(entries.length, 100_000);
    assert.deepEqual(faults, [
      "100001 got more than 100000 images; expected several lists",
    ]);
  });

  void it("reports at most 1 000 faults and notes, and quotes at most 200 characters", () => {
    const { faults } = outlineList(`${"A".repeat(10_000)}\n`.repeat(100));
    assert.ok(faults.every((fault) => fault.length < 300));
    assert.equal(outlineList("A B\n".repeat(5_000)).faults.length, 1_000);
    const built = Array.from(
      { length: 1_500 },
      (_, i) => `  a${i}: {build: .}`,
    );
    const list = `services:\n${built.join("\n")}`;
    assert.equal(outlineList(list).notes.length, 1_000);
  });

  void it("rejects aliases that multiply", () => {
    const lines = ["r.io:", "  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"];
    for (let i = 1; i < 9; i += 1) {
      const aliases = Array.from({ length: 10 }, () => `*a${i - 1}`).join(", ");
      lines.push(`  a${i}: &a${i} [${aliases}]`);
    }
    lines.push("  images: {b: ['1']}");
    const { entries, faults } = outlineList(lines.join("\n"));
    assert.deepEqual(entries, []);
    assert.match(faults.join(), /^\d+ got more than 1000000 values/);
  });

  void it("rejects merge keys that multiply", () => {
    const wide = Array.from({ length: 2_000 }, (_, i) => `k${i}: 1`).join(", ");
    const merges = Array.from({ length: 2_000 }, (_, i) => `m${i}: {<<: *w}`);
    const { faults } = outlineList(
      `w: &w {${wide}}\n${merges.join("\n")}\nservices: {a: {image: 'a:1'}}`,
    );
    assert.match(faults.join(), /^\d+ got more than 1000000 values/);
  });

  void it("rejects an anchor that contains itself", () => {
    const { faults } = outlineList("services: &s\n  a: {image: 'a:1', x: *s}");
    assert.deepEqual(faults, [
      "2 got an alias without its anchor; expected the *NAME of an anchor above (quote a text with *)",
    ]);
  });

  void it("rejects deep nesting in every style", () => {
    for (const text of [
      `services: ${"[".repeat(5_000)}`,
      `services: ${"{a: ".repeat(300)}1${"}".repeat(300)}`,
      `services:\n${Array.from({ length: 300 }, (_, i) => `${" ".repeat(i + 1)}a:`).join("\n")} 1`,
      `services: ${"- ".repeat(5_000)}1`,
    ]) {
      const { entries, faults } = outlineList(text, { format: "compose" });
      assert.deepEqual(entries, []);
      assert.equal(faults.length, 1, text.slice(0, 40));
    }
  });

  void it("rejects the same key twice, a bad merge and an unknown alias", () => {
    for (const [text, fault] of [
      [
        "services: {a: {image: 'a:1'}}\nservices: {}",
        '2 got the key "services" of line 1 again; expected each key once',
      ],
      [
        "services: {a: {<<: 1}}",
        "1 got a merge key with another value; expected an alias of a mapping, or a list of them",
      ],
      [
        "services: {a: *b}",
        "1 got an alias without its anchor; expected the *NAME of an anchor above (quote a text with *)",
      ],
    ] as const) {
      assert.deepEqual(outlineList(text).faults, [fault]);
    }
  });

  void it("quotes nothing of a file with a syntax error", () => {
    for (const password of [
      "!x s3cret *y",
      "*s3cret",
      "&s3cret *s3cret",
      "'s3",
    ]) {
      const { faults } = outlineList(
        `r.io:\n  credentials: {password: ${password}}\n`,
      );
      assert.ok(faults.length > 0);
      assert.doesNotMatch(faults.join(), /s3|!x|\*y/);
    }
  });
});
