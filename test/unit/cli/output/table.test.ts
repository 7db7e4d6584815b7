import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PLAIN } from "../../../../src/cli/output/output-style.ts";
import {
  type Column,
  cutText,
  fieldsText,
  tableText,
} from "../../../../src/cli/output/table.ts";

const COLUMNS: readonly Column[] = [
  { heading: "IMAGE", cut: "middle" },
  { heading: "SIZE", align: "right" },
  { heading: "STATE", cut: "end" },
];
const LONG = "registry.example/a-team/a-repository-with-a-long-name:1.2.3";
const ROWS = [
  ["docker.io/library/app:1", "3.5 MiB", ""],
  [LONG, "12 B", "hosted"],
];

void describe("a table", () => {
  void it("aligns its columns under headings, without space at the end of a line", () => {
    assert.equal(
      tableText(COLUMNS, ROWS, PLAIN),
      `IMAGE${" ".repeat(54)}     SIZE  STATE
docker.io/library/app:1${" ".repeat(36)}  3.5 MiB
${LONG}     12 B  hosted
`,
    );
  });

  void it("fits the terminal, cutting the widest column that may be cut", () => {
    for (const width of [60, 50, 40]) {
      const text = tableText(COLUMNS, ROWS, { width, isColoured: false });
      const lines = text.trimEnd().split("\n");
      assert.ok(
        lines.every((line) => line.length <= width),
        text,
      );
      assert.match(lines[2] ?? "", /^registry.*….*1\.2\.3 +12 B  hosted$/);
    }
  });

  void it("keeps cells recognisable on a terminal that is too narrow", () => {
    const text = tableText(COLUMNS, ROWS, { width: 10, isColoured: false });
    assert.match(text, /\nregistry…e:1\.2\.3 +12 B  hosted\n$/);
  });

  void it("paints headings and cells without moving the columns", () => {
    const text = tableText(
      [{ heading: "A" }, { heading: "B" }],
      [[{ text: "bad", colour: "red" }, "x"]],
      { width: undefined, isColoured: true },
    );
    assert.equal(
      text,
      "\u001B[1mA\u001B[22m    \u001B[1mB\u001B[22m\n\u001B[31mbad\u001B[39m  x\n",
    );
  });

  void it("shows control characters of foreign text as replacement characters", () => {
    const text = tableText(
      [{ heading: "A" }],
      [["a\u001B[2Jb\nc\u009Bd\u202Ee"]],
      PLAIN,
    );
    assert.equal(text, "A\na\uFFFD[2Jb\uFFFDc\uFFFDd\uFFFDe\n");
  });

  void it("lists fields without headings", () => {
    assert.equal(
      fieldsText(
        [
          ["size", "3 B"],
          ["media type", "a/b"],
        ],
        PLAIN,
      ),
      "size        3 B\nmedia type  a/b\n",
    );
  });
});

const CUTS = [
  ["abcdef", 6, "end", "abcdef"],
  ["abcdef", 5, "end", "abcd…"],
  ["abcdef", 5, "middle", "ab…ef"],
  ["abcdef", 4, "middle", "ab…f"],
  ["abcdef", 1, "middle", "…"],
] as const;

for (const [text, width, cut, want] of CUTS) {
  void it(`cuts ${text} to ${want}`, () => {
    assert.equal(cutText(text, width, cut), want);
  });
}
