import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

const FOLDER = join(import.meta.dirname, "../..");
const ROW = /^\| ([CRS]\d+) \|[^|]*\| `([^`]+)`: "(.+)" \|$/;

interface Row {
  readonly row: string;
  readonly file: string;
  readonly name: string;
}

const text = await readFile(join(FOLDER, "HARDENING.md"), "utf8");
/** The second table names failures, not files. */
const [table = ""] = text.split("## Tests that fail without the handling");
const rows = table.split("\n").flatMap((line): Row[] => {
  const [, row, file, name] = ROW.exec(line) ?? [];
  return row === undefined || file === undefined || name === undefined
    ? []
    : [{ row, file, name }];
});

void test("every row of HARDENING.md names a test that exists", async () => {
  const lines = table.split("\n").filter((line) => /^\| [CRS]\d/.test(line));
  assert.equal(rows.length, lines.length);
  for (const { row, file, name } of rows) {
    const source = await readFile(join(FOLDER, file), "utf8");
    assert.ok(source.includes(name), `${row}: ${file}: ${name}`);
  }
});

void test("HARDENING.md has every row", () => {
  const listed = new Set(rows.map(({ row }) => row));
  const wanted = [
    ...Array.from({ length: 9 }, (_, at) => `C${at + 3}`),
    ...Array.from({ length: 12 }, (_, at) => `R${at + 1}`),
    ...[6, 7, 8, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 25, 26].map(
      (at) => `S${at}`,
    ),
  ];
  assert.deepEqual(
    wanted.filter((row) => !listed.has(row)),
    [],
  );
});
