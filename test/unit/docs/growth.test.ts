import assert from "node:assert/strict";
import { globSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { test } from "node:test";
import {
  IN_MEMORY,
  openDatabase,
} from "../../../src/storage/local/index/open-sqlite-index.ts";

const ROOT = join(import.meta.dirname, "../../..");
const ROW = /^\|[^|]+\|[^|]+\|[^|]+\|[^|]+\| `([^`]+)`: "(.+)" +\|$/;
/** Rooms whose memories may outlive a request. */
const SOURCES =
  "src/{http,images,mirror,retention,storage,telemetry,upstream,wire}/**/*.ts";
const MEMORY =
  /new LRUCache|(?:readonly )?#\w+(?::[^=;]+)? = new (?:Map|Set|SingleFlight)\b/;

async function readSection(): Promise<string> {
  const text = await readFile(join(ROOT, "src/README.md"), "utf8");
  const [, section = ""] = text.split("\n## What can grow\n");
  return section.split("\n## ")[0] ?? "";
}

async function readSources(): Promise<readonly (readonly [string, string])[]> {
  return Promise.all(
    globSync(SOURCES, { cwd: ROOT }).map(
      async (path) => [path, await readFile(join(ROOT, path), "utf8")] as const,
    ),
  );
}

void test("every row of what can grow names a test that is there", async () => {
  const rows = (await readSection())
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .slice(2);
  assert.ok(rows.length >= 30);
  const missing: string[] = [];
  for (const row of rows) {
    const [, file = "", name = ""] = ROW.exec(row) ?? [];
    const source = await readFile(join(ROOT, "test", file), "utf8").catch(
      () => "",
    );
    if (name === "" || !source.includes(name)) missing.push(row);
  }
  assert.deepEqual(missing, []);
});

void test("every table of the index is among what can grow", async () => {
  const section = await readSection();
  const database = openDatabase(IN_MEMORY);
  const tables = database
    .prepare<[], string>(
      "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    )
    .pluck()
    .all();
  database.close();
  assert.ok(tables.length >= 12);
  assert.deepEqual(
    tables.filter((table) => !section.includes(`\`${table}\``)),
    [],
  );
});

void test("every file with a memory that outlives a call is among what can grow", async () => {
  const section = await readSection();
  const files = (await readSources())
    .filter(([, source]) => MEMORY.test(source))
    .map(([path]) => basename(path));
  assert.ok(files.length >= 40);
  assert.deepEqual(
    files.filter((file) => !section.includes(`\`${file}\``)),
    [],
  );
});

void test("every memory of least recent use has a bound", async () => {
  const unbounded: string[] = [];
  for (const [path, source] of await readSources()) {
    for (const part of source.split("new LRUCache").slice(1)) {
      const options = part.slice(0, part.indexOf("});") + 1);
      if (!/\bmax(?:Size)?\b/.test(options)) unbounded.push(path);
    }
  }
  assert.deepEqual(unbounded, []);
});
