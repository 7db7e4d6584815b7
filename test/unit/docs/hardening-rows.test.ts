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
const rows = text.split("\n").flatMap((line): Row[] => {
  const [, row, file, name] = ROW.exec(line) ?? [];
  return row === undefined || file === undefined || name === undefined
    ? []
    : [{ row, file, name }];
});

void test("every row names a test that is there", async () => {
  const lines = text.split("\n").filter((line) => /^\| [CRS]\d/.test(line));
  assert.equal(rows.length, lines.length);
  for (const { row, file, name } of rows) {
    const source = await readFile(join(FOLDER, file), "utf8");
    assert.ok(source.includes(name), `${row}: ${file}: ${name}`);
  }
});

void test("no row is left out", () => {
  const told = new Set(rows.map(({ row }) => row));
  const wanted = ["C3", "C4", "C5", "C6", "C7", "C8", "C10", "C11"].concat(
    Array.from({ length: 12 }, (_, at) => `R${at + 1}`),
    ["S18", "S19", "S20", "S21", "S22", "S25", "S26"],
  );
  assert.deepEqual(
    wanted.filter((row) => !told.has(row)),
    [],
  );
});
