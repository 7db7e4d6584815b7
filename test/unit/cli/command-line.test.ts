import assert from "node:assert/strict";
import { PassThrough, Writable } from "node:stream";
import { describe, it } from "node:test";
import {
  createProgram,
  runCommandLine,
} from "../../../src/cli/command-line.ts";
import { DeclaredCommand } from "../../../src/cli/declare-command.ts";
import { ADVICE, FOREIGN_WORDS } from "../../../src/cli/foreign-words.ts";
import { CollectedOutput } from "../../support/collected-output.ts";
import {
  leavesOf,
  pathOf,
} from "../../support/reference/commands-reference.ts";
import { shellWords } from "../../support/shell-words.ts";

async function run(args: readonly string[]): Promise<{
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}> {
  const stdout = new CollectedOutput();
  const stderr = new CollectedOutput();
  const io = { env: {}, cwd: "/", stdin: new PassThrough(), stdout, stderr };
  const code = await runCommandLine(args, io);
  return { code, stdout: stdout.text, stderr: stderr.text };
}

/** Declares the commands, which do nothing. */
function idleProgram(): ReturnType<typeof createProgram> {
  const program = createProgram();
  program.configureOutput({ writeOut: () => {}, writeErr: () => {} });
  for (const leaf of leavesOf(program)) leaf.action(() => {});
  return program;
}

void describe("the help of every command", () => {
  void it("groups the commands, shows a clause of each, and gives examples", async () => {
    const { code, stdout } = await run(["--help"]);
    assert.equal(code, 0);
    assert.match(
      stdout,
      /\n\nHosted repositories:\n  tag .*\n[^]*\n\nSet-up:\n/,
    );
    assert.match(stdout, /\n  rm .*remove a mirrored image from the cache, or/);
    for (const help of [stdout, (await run(["tls", "--help"])).stdout]) {
      const [, examples = ""] = help.split("\nExamples:\n");
      assert.ok(examples !== "", help);
      for (const example of examples.trimEnd().split("\n")) {
        const [, ...args] = shellWords(example.trim());
        if (args[0] === "help") continue;
        await idleProgram().parseAsync(args, { from: "user" });
      }
    }
  });

  for (const leaf of leavesOf(createProgram())) {
    const path = pathOf(leaf);
    void it(`shows examples of ${path} that parse`, async () => {
      const [, ...words] = path.split(" ");
      const { code, stdout } = await run([...words, "--help"]);
      assert.equal(code, 0);
      assert.ok(leaf instanceof DeclaredCommand, "not declared with examples");
      assert.ok(leaf.examples.length > 0);
      const [, shown = ""] = stdout.split("\nExamples:\n");
      assert.deepEqual(
        shown.trimEnd().split("\n"),
        leaf.examples.map((example) => `  ${example}`),
      );
      for (const example of leaf.examples) {
        // Another program may write what the command reads.
        const command = example.replace(/^[^|]+ \| (?=entrepot )/, "");
        assert.ok(`${command} `.startsWith(`${path} `), example);
        const [, ...args] = shellWords(command);
        await idleProgram().parseAsync(args, { from: "user" });
      }
    });
  }
});

void describe("a command line", () => {
  void it("that is wrong names the help of its command", async () => {
    const { code, stdout, stderr } = await run(["pin"]);
    assert.equal(code, 2);
    assert.equal(stdout, "");
    assert.match(
      stderr,
      /^error: missing required argument 'ref'\n[^]*Run 'entrepot pin --help' for usage\.\n$/,
    );
    const nested = await run(["tls", "self-signed"]);
    assert.equal(nested.code, 2);
    assert.match(
      nested.stderr,
      /Run 'entrepot tls self-signed --help' for usage\.\n$/,
    );
  });
});

void describe("a word of another tool", () => {
  for (const word of ["delete", "prune", "sync", "pull", "stats", "list"]) {
    void it(`${word}: names the command to use`, async () => {
      const { code, stdout, stderr } = await run([word, "alpine:3"]);
      assert.deepEqual([code, stdout], [2, ""]);
      assert.match(
        stderr,
        new RegExp(
          `^error: unknown command '${word}'\\n.*'entrepot .*\\nRun 'entrepot --help' for usage\\.\\n$`,
        ),
      );
    });
  }

  void it("gets advice that names commands which exist", () => {
    const names = createProgram().commands.map((one) => one.name());
    for (const advice of FOREIGN_WORDS.values()) {
      for (const [, name = ""] of advice.matchAll(/'entrepot (\S+?)[ ']/g)) {
        assert.ok(name === "--version" || names.includes(name), advice);
      }
    }
  });

  void it("is not a command, nor a word with two meanings", () => {
    const names = createProgram().commands.map((one) => one.name());
    for (const word of FOREIGN_WORDS.keys()) {
      assert.ok(!names.includes(word), word);
    }
    const words = ADVICE.flatMap(([some]) => some.split(" "));
    assert.equal(new Set(words).size, words.length);
  });
});

void describe("a misspelled word", () => {
  const TABLE = [
    [["inspct", "a"], /unknown command 'inspct'\n\(Did you mean inspect\?\)/],
    [["ls", "--jsn"], /unknown option '--jsn'\n\(Did you mean --json\?\)/],
    [["tls", "self-sgned"], /Did you mean self-signed\?/],
    [["zzzzzz"], /unknown command 'zzzzzz'\nRun 'entrepot --help'/],
  ] as const;
  for (const [args, want] of TABLE) {
    void it(`${args.join(" ")}: suggests the right one`, async () => {
      const { code, stderr } = await run(args);
      assert.equal(code, 2);
      assert.match(stderr, want);
    });
  }
});

void describe("output that cannot be written", () => {
  for (const [code, want] of [
    ["EPIPE", 0],
    ["ENOSPC", 1],
  ] as const) {
    void it(`${code}: exits ${want}`, async () => {
      const stdout = new Writable({
        write: (_chunk, _encoding, done) => {
          done(Object.assign(new Error(`${code}: no`), { code }));
        },
      });
      const stderr = new CollectedOutput();
      const stdin = new PassThrough();
      const io = { env: {}, cwd: "/", stdin, stdout, stderr };
      assert.equal(await runCommandLine(["--help"], io), want);
      assert.equal(
        stderr.text,
        want === 0 ? "" : `entrepot: standard output: ${code}: no\n`,
      );
    });
  }
});
