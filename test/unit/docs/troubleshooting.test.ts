import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { createProgram } from "../../../src/cli/command-line.ts";
import { createMetrics } from "../../../src/telemetry/metrics.ts";
import { anchorOf } from "../../support/markdown.ts";
import { shellWords } from "../../support/shell-words.ts";
import {
  readEngineMessages,
  TROUBLESHOOTING,
} from "../../support/troubleshooting.ts";

const page = await readFile(TROUBLESHOOTING, "utf8");
const [contents = "", ...sections] = page.split(/^## /m);

void describe("the trouble-shooting page", () => {
  void it("lists every symptom in its table of contents", () => {
    assert.deepEqual(
      [...contents.matchAll(/^- \[(.+?)\]\(#(.+?)\)$/gm)].map(
        ([, title, anchor]) => [title, anchor],
      ),
      sections.map((section) => {
        const [heading = ""] = section.split("\n");
        return [heading, anchorOf(heading)];
      }),
    );
  });

  void it("has a cause, a check and a fix for each symptom", () => {
    for (const section of sections) {
      const marks = [...section.matchAll(/^\*\*(\w+)\*\*: \S/gm)].map(
        ([, mark]) => mark,
      );
      assert.deepEqual(marks, ["Cause", "Check", "Fix"], section.slice(0, 80));
    }
  });

  void it("has every row of its tables read by the test with real engines", async () => {
    const rows = page.match(/^\| [A-Za-z]+ [\d.]+ +\|/gm) ?? [];
    assert.equal((await readEngineMessages()).length, rows.length);
  });

  void it("names only commands and options of entrepot that parse", async () => {
    const lines = page.match(/(?<=`|^)entrepot [a-z][^`\n]*/gm) ?? [];
    assert.ok(lines.length > 20);
    for (const line of lines) {
      const program = createProgram();
      program.exitOverride();
      for (const command of program.commands) {
        command.action(() => undefined).exitOverride();
        command.configureOutput({ writeErr: () => undefined });
      }
      const [, ...args] = shellWords(line);
      const known = program.commands.some((one) => one.name() === args[0]);
      assert.ok(known, line);
      // A mention without arguments is not a whole command line.
      if (args.length > 1) {
        await program.parseAsync(args, { from: "user" });
      }
    }
  });

  void it("names only metrics that exist", () => {
    const names = createMetrics("0.0.0")
      .registry.getMetricsAsArray()
      .map(({ name }) => name);
    const named = page.match(/\bentrepot_[a-z_]+/g) ?? [];
    assert.ok(named.length > 4);
    for (const name of named) assert.ok(names.includes(name), name);
  });
});
