import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

const FOLDER = join(import.meta.dirname, "../..");
/** The second cell is empty in the further lines of a row. */
const ROW = /^\| ([US]\d+) \|[^|]*\| `([^`]+)`: "(.+)" \|$/;

async function readRows(): Promise<
  readonly (readonly [row: string, file: string, name: string])[]
> {
  const text = await readFile(join(FOLDER, "README.md"), "utf8");
  return text
    .split("\n")
    .filter((line) => /^\| [US]\d/.test(line))
    .map((line) => {
      const [, row = "", file = "", name = ""] = ROW.exec(line) ?? [];
      assert.notEqual(row, "", `no row: ${line}`);
      return [row, file, name] as const;
    });
}

void test("every row of the fault matrix names tests that exist", async () => {
  const missing: string[] = [];
  for (const [row, file, name] of await readRows()) {
    const source = await readFile(join(FOLDER, file), "utf8").catch(() => "");
    if (!source.includes(name)) missing.push(`${row}: ${file}: ${name}`);
  }
  assert.deepEqual(missing, []);
});

void test("the fault matrix has every row of the upstreams' faults", async () => {
  const rows = new Set((await readRows()).map(([row]) => row));
  const wanted = [
    ...Array.from({ length: 23 }, (_, at) => `U${at + 1}`),
    "S1",
    "S2",
    "S3",
    "S4",
    "S5",
    "S10",
    "S11",
    "S17",
  ];
  assert.deepEqual(
    wanted.filter((row) => !rows.has(row)),
    [],
  );
});
