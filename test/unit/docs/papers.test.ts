import assert from "node:assert/strict";
import { globSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { codeBlocksOf } from "../../support/markdown.ts";

const PROJECT = join(import.meta.dirname, "../../..");
const DECISIONS = join(PROJECT, "src/decisions");

function readPage(path: string): Promise<string> {
  return readFile(join(PROJECT, path), "utf8");
}

interface Package {
  readonly version: string;
  readonly scripts: Readonly<Record<string, string>>;
}

const manifest = JSON.parse(await readPage("package.json")) as Package;

void describe("the records of decisions", () => {
  const records = globSync("[0-9]*.md", { cwd: DECISIONS }).toSorted();

  void it("are numbered in order and listed in their README", async () => {
    assert.ok(records.length >= 12);
    const readme = await readPage("src/decisions/README.md");
    const listed = [...readme.matchAll(/^\| \[(\d{4})\]\(([^)]+)\)/gm)];
    assert.deepEqual(
      listed.map(([, , file]) => file),
      records,
    );
    assert.deepEqual(
      listed.map(([, number = ""]) => Number(number)),
      records.map((_, at) => at + 1),
    );
  });

  for (const record of records) {
    void it(`${record} has a date and its five sections`, async () => {
      const text = await readPage(`src/decisions/${record}`);
      assert.match(text, new RegExp(`^# ${record.slice(0, 4)}: `));
      assert.match(text, /^20\d\d-\d\d-\d\d, commit/m);
      const sections = [...text.matchAll(/^## (.+)$/gm)].map(
        ([, section]) => section,
      );
      assert.deepEqual(sections, [
        "Context",
        "Decision",
        "Consequences",
        "Measured",
        "How to reverse",
      ]);
    });
  }
});

void describe("CONTRIBUTING.md", () => {
  void it("runs only scripts of package.json and test files that exist", async () => {
    const text = await readPage("CONTRIBUTING.md");
    const commands = codeBlocksOf(text)
      .filter(({ language }) => language === "sh")
      .map((block) => block.text)
      .join("");
    const named = [...text.matchAll(/npm run (?:--silent )?([a-z:0-9]+)/g)];
    assert.ok(named.length >= 6);
    for (const [, script = ""] of named) {
      assert.ok(script in manifest.scripts, script);
    }
    for (const [path] of commands.matchAll(/test\/\S+\.test\.ts/g)) {
      await readPage(path);
    }
  });

  void it("names files of the source that exist", async () => {
    const text = await readPage("CONTRIBUTING.md");
    const paths = [...text.matchAll(/`((?:src|test|config)\/[\w./-]+\.\w+)`/g)];
    assert.ok(paths.length >= 8);
    for (const [, path = ""] of paths) await readPage(path);
  });
});

void describe("CHANGELOG.md", () => {
  void it("begins with [Unreleased] and then has the version of package.json with a date", async () => {
    const text = await readPage("CHANGELOG.md");
    const sections = [...text.matchAll(/^## (.+)$/gm)].map(
      ([, section = ""]) => section,
    );
    assert.equal(sections[0], "[Unreleased]");
    const [, version, date = ""] =
      /^\[(.+)\] - (.+)$/.exec(sections[1] ?? "") ?? [];
    assert.equal(version, manifest.version);
    assert.match(date, /^20\d\d-\d\d-\d\d$/);
  });
});

void describe("SECURITY.md", () => {
  void it("supports the minor version of package.json", async () => {
    const text = await readPage("SECURITY.md");
    const minor = manifest.version.split(".").slice(0, 2).join(".");
    assert.match(text, new RegExp(`^\\| ${minor} +\\| yes`, "m"));
  });
});
