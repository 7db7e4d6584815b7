import assert from "node:assert/strict";
import { globSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { runCommand } from "../../support/run-command.ts";

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

async function readHelp(...args: readonly string[]): Promise<string> {
  const main = join(PROJECT, "src/main.ts");
  const { stdout } = await runCommand(process.execPath, [
    main,
    ...args,
    "--help",
  ]);
  return stdout;
}

/** Returns the names of the commands that a help text lists. */
function commandsOf(help: string): readonly string[] {
  const [, list = ""] = help.split("\nCommands:\n");
  return [...list.matchAll(/^ {2}([a-z][a-z-]*)/gm)]
    .map(([, name = ""]) => name)
    .filter((name) => name !== "help");
}

async function readHelpTexts(
  ...args: readonly string[]
): Promise<readonly (readonly [string, string])[]> {
  const help = await readHelp(...args);
  const inner = await Promise.all(
    commandsOf(help).map((command) => readHelpTexts(...args, command)),
  );
  return [[`entrepot ${[...args, "--help"].join(" ")}`, help], ...inner.flat()];
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
    const texts = await readHelpTexts();
    assert.ok(texts.length >= 12, `${texts.length}`);
    assert.deepEqual(
      texts.flatMap(([name, text]) => findMarked(name, text)),
      [],
    );
  });
});
