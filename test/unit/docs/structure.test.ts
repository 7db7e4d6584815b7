import assert from "node:assert/strict";
import { globSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { dirname, join, posix } from "node:path";
import { describe, it } from "node:test";
import { runCommand } from "../../support/run-command.ts";
import { tempDir } from "../../support/temp-dir.ts";

const PROJECT = join(import.meta.dirname, "../../..");
const SOURCES = join(PROJECT, "src");

const MAX_ROOMS = 16;
const MAX_FILES_IN_FOLDER = 25;
const MAX_FILE_LINES = 400;
const MAX_FUNCTION_LINES = 79;

/** Rooms from the bottom to the top: each imports lower ones only. */
const FLOORS = [
  ["oci"],
  ["config"],
  ["telemetry"],
  ["routing"],
  ["wire"],
  ["storage", "upstream"],
  ["retention"],
  ["bodies"],
  ["mirror", "hosted"],
  ["images"],
  ["http"],
  ["app"],
  ["cli"],
  ["main.ts"],
] as const;

/** Functions that are tables: one entry below the other, without branches. */
const TABLES = [
  "createMetrics", // one metric per entry
  "prepareIndexStatements", // one SQL statement per entry
  "prepareRootStatements", // one SQL statement per entry
  "prepareHostedStatements", // one SQL statement per entry
];

/** Paths of the sources below `src/`, each with the paths that it imports; types included. */
async function readImports(): Promise<ReadonlyMap<string, readonly string[]>> {
  const imports = new Map<string, readonly string[]>();
  for (const path of globSync("**/*.ts", { cwd: SOURCES })) {
    const text = await readFile(join(SOURCES, path), "utf8");
    const found = text.matchAll(
      /(?:^(?:import|export)\b[^;]*?\bfrom |^import |\bimport\(|new URL\()\s*"(\.[^"]+\.ts)"/gm,
    );
    imports.set(
      path,
      [...found].map(([, target = ""]) =>
        posix.normalize(posix.join(dirname(path), target)),
      ),
    );
  }
  return imports;
}

const roomOf = (path: string): string => path.split("/")[0] ?? "";

function floorOf(path: string): number {
  const room = roomOf(path);
  const floor = FLOORS.findIndex((rooms) => rooms.some((one) => one === room));
  assert.notEqual(floor, -1, `${room} has no floor`);
  return floor;
}

/** Returns the files of one cycle, or undefined if there is none. */
function findCycle(
  imports: ReadonlyMap<string, readonly string[]>,
): readonly string[] | undefined {
  const done = new Set<string>();
  const visit = (
    path: string,
    trail: readonly string[],
  ): string[] | undefined => {
    if (trail.includes(path))
      return [...trail.slice(trail.indexOf(path)), path];
    if (done.has(path)) return undefined;
    for (const target of imports.get(path) ?? []) {
      const cycle = visit(target, [...trail, path]);
      if (cycle !== undefined) return cycle;
    }
    done.add(path);
    return undefined;
  };
  for (const path of imports.keys()) {
    const cycle = visit(path, []);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}

void describe("the structure of src", async () => {
  const imports = await readImports();

  void it("has few rooms, each on a floor", () => {
    const rooms = new Set(
      [...imports.keys()].filter((path) => path.includes("/")).map(roomOf),
    );
    assert.ok(rooms.size >= 12 && rooms.size <= MAX_ROOMS, `${rooms.size}`);
    for (const room of rooms) floorOf(room);
  });

  void it("imports files that exist", () => {
    for (const [path, targets] of imports) {
      for (const target of targets) {
        assert.ok(imports.has(target), `${path} imports ${target}`);
      }
    }
    assert.ok([...imports.values()].flat().length > 1_000);
  });

  void it("imports downwards only, types included", () => {
    for (const [path, targets] of imports) {
      for (const target of targets) {
        if (roomOf(target) === roomOf(path)) continue;
        assert.ok(
          floorOf(target) < floorOf(path),
          `${path} must not import ${target}`,
        );
      }
    }
  });

  void it("has no cycle of files, types included", () => {
    assert.equal(findCycle(imports)?.join(" -> "), undefined);
  });

  void it("has no crowded folder", () => {
    const counts = Map.groupBy(imports.keys(), (path) => dirname(path));
    for (const [folder, { length }] of counts) {
      assert.ok(length <= MAX_FILES_IN_FOLDER, `${folder}: ${length} files`);
    }
  });

  void it("has no long file, and no long function but tables", async (test) => {
    const configFile = join(await tempDir(test), "oxlint.json");
    const rules = {
      "max-lines": ["error", { max: MAX_FILE_LINES }],
      "max-lines-per-function": ["error", { max: MAX_FUNCTION_LINES }],
    };
    await writeFile(
      configFile,
      JSON.stringify({ categories: { correctness: "off" }, rules }),
    );
    const args = ["--config", configFile, "--format", "unix", "src"];
    const report = await runCommand("oxlint", args, { cwd: PROJECT }).catch(
      (error: unknown) => ({ stdout: String(error) }),
    );
    const found = report.stdout
      .split("\n")
      .filter((line) => line.includes("eslint(max-lines"))
      .filter((line) => !TABLES.some((name) => line.includes(`\`${name}\``)));
    assert.deepEqual(found, []);
    for (const name of TABLES) assert.ok(report.stdout.includes(name), name);
  });
});
