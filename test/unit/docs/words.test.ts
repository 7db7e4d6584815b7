import assert from "node:assert/strict";
import { globSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { PassThrough } from "node:stream";
import type { Command } from "commander";
import {
  createProgram,
  runCommandLine,
} from "../../../src/cli/command-line.ts";
import { CollectedOutput } from "../../support/collected-output.ts";

const PROJECT = join(import.meta.dirname, "../../..");

/** Words of section "Language" in CONTRIBUTING.md that must not be used. */
const MARKED =
  /\b(?:whoever|somebody|nobody|everybody|anybody|whom|tell|tells|told|anew)\b/gi;

/** The user `nobody` of images and manifests. */
const USER_NAMES = /\b(?:user|owner|group|runAsUser):? *"?nobody\b/gi;

const FILES = [
  "README.md",
  "src/**/*.{ts,md}",
  "bin/*",
  "config/**/*",
  "deploy/**/*",
  "test/**/*.{ts,md}",
  "Dockerfile",
];

/** Has the words as data. */
const THIS_FILE = "test/unit/docs/words.test.ts";

/** Returns `NAME:LINE: WORD` for each marked word. */
function findMarked(name: string, text: string): readonly string[] {
  return text
    .split("\n")
    .flatMap((line, index) =>
      [...line.replaceAll(USER_NAMES, "").matchAll(MARKED)].map(
        ([word]) => `${name}:${index + 1}: ${word}`,
      ),
    );
}

async function readHelp(args: readonly string[]): Promise<string> {
  const stdout = new CollectedOutput();
  const stdin = new PassThrough();
  const io = { env: {}, cwd: "/", stdin, stdout, stderr: stdout };
  assert.equal(await runCommandLine([...args, "--help"], io), 0);
  return stdout.text;
}

/** Returns the arguments that name the program, and each command in it. */
function pathsOf(command: Command): readonly (readonly string[])[] {
  const inner = command.commands.flatMap((child) =>
    pathsOf(child).map((path) => [child.name(), ...path]),
  );
  return [[], ...inner];
}

void describe("marked words", () => {
  void it("are found, but for the user of an image", () => {
    assert.deepEqual(findMarked("x", "USER nobody\nIt Tells\n"), [
      "x:2: Tells",
    ]);
  });

  void it("are in no source, test, example, manifest or page", async () => {
    const names = globSync(FILES, { cwd: PROJECT, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) =>
        join(entry.parentPath, entry.name).slice(PROJECT.length + 1),
      )
      .filter((name) => name !== THIS_FILE);
    assert.ok(names.length > 800, `${names.length}`);
    const found = await Promise.all(
      names.map(async (name) =>
        findMarked(name, await readFile(join(PROJECT, name), "utf8")),
      ),
    );
    assert.deepEqual(found.flat(), []);
  });

  void it("are in no help text of the command line", async () => {
    const paths = pathsOf(createProgram());
    assert.ok(paths.length >= 12, `${paths.length}`);
    for (const path of paths) {
      const name = ["entrepot", ...path, "--help"].join(" ");
      assert.deepEqual(findMarked(name, await readHelp(path)), []);
    }
  });
});
