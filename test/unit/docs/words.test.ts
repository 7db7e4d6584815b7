import assert from "node:assert/strict";
import { globSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";

const PROJECT = join(import.meta.dirname, "../../..");

/** CONTRIBUTING.md has the list, with the words to use instead. */
const MARKED =
  /\b(?:whoever|somebody|nobody|everybody|anybody|whom|tell|tells|told|anew)\b/i;
/** The name of a user in manifests. */
const USER = /\b(?:user|owner|group):? *"?nobody\b/i;

const CHECKED = [
  "README.md",
  "bin/*.cjs",
  "config/*.{json,md,yaml}",
  "deploy/**/*.{js,json,md,service,toml,yaml,yml}",
  "src/**/*.{ts,md}",
];

void describe("the words of source and documents", () => {
  void it("include none that CONTRIBUTING.md marks", async () => {
    const found: string[] = [];
    const files = globSync(CHECKED, { cwd: PROJECT });
    assert.ok(files.length > 250);
    for (const file of files) {
      const text = await readFile(join(PROJECT, file), "utf8");
      for (const [at, line] of text.split("\n").entries()) {
        if (MARKED.test(line.replace(USER, ""))) {
          found.push(`${file}:${at + 1}: ${line.trim()}`);
        }
      }
    }
    assert.deepEqual(found, []);
  });
});
