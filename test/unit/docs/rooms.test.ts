import assert from "node:assert/strict";
import { globSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

const SOURCES = join(import.meta.dirname, "../../../src");

/** Paths below `src/` that the tables of `src/README.md` list, each under its folder's heading. */
async function readTables(): Promise<readonly string[]> {
  const text = await readFile(join(SOURCES, "README.md"), "utf8");
  const paths: string[] = [];
  let folder: string | undefined;
  for (const line of text.split("\n")) {
    if (line.startsWith("#")) folder = /^### `(.+)\/`$/.exec(line)?.[1];
    const file = /^\| `([a-z0-9-]+\.ts)` +\|/.exec(line)?.[1];
    if (folder !== undefined && file !== undefined) {
      paths.push(`${folder}/${file}`);
    }
  }
  return paths;
}

void test("src/README.md lists every source file once, and no file that does not exist", async () => {
  const sources = globSync("*/**/*.ts", { cwd: SOURCES });
  assert.ok(sources.length > 300);
  assert.deepEqual((await readTables()).toSorted(), sources.toSorted());
});

void test("src/README.md draws every room", async () => {
  const text = await readFile(join(SOURCES, "README.md"), "utf8");
  const [, drawing = ""] = text.split("\nmain.ts\n");
  const drawn = [
    ...(drawing.split("```")[0] ?? "").matchAll(/^ +([a-z]+)\/ /gm),
  ]
    .map(([, room = ""]) => room)
    .toSorted();
  const rooms = new Set(
    globSync("*/**/*.ts", { cwd: SOURCES }).map(
      (path) => path.split("/")[0] ?? "",
    ),
  );
  assert.deepEqual(drawn, [...rooms].toSorted());
});
