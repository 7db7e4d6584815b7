import assert from "node:assert/strict";
import {
  chmod,
  cp,
  mkdir,
  readFile,
  realpath,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { AfterTest } from "../../support/after-test.ts";
import { Child } from "../../support/child-process.ts";
import { tempDir } from "../../support/temp-dir.ts";

const LAUNCHER = join(import.meta.dirname, "../../../bin/entrepot.cjs");
const FLAGS = ["--disable-sigusr1", "--disable-proto=delete"];

/** Prints how it was started, then what happens to it, for as long as it is asked to run. */
const PROGRAM = `
const { argv, execArgv, execPath, env, pid } = process;
if (argv[2] === "wait") {
  setInterval(() => {}, 60_000);
  process.on("SIGHUP", () => process.stdout.write("SIGHUP\\n"));
  process.on("SIGTERM", () => process.exit(7));
}
process.stdout.write(JSON.stringify({ argv, execArgv, execPath, pid,
  arenas: env.MALLOC_ARENA_MAX, bundled: env.BUNDLED }) + "\\n");
if (argv[2] === "exit") process.exit(Number(argv[3]));
`;

/** Makes a process look like one of Node.js 12 to its program. */
const OLD_NODE = `
Object.defineProperty(process.versions, "node", { value: "12.22.12" });
process.execve = undefined;
`;

interface Started {
  readonly argv: readonly string[];
  readonly execArgv: readonly string[];
  readonly execPath: string;
  readonly pid: number;
  readonly arenas?: string;
  readonly bundled?: string;
}

class Installed {
  readonly #test: AfterTest;
  readonly #dir: string;

  private constructor(test: AfterTest, dir: string) {
    this.#test = test;
    this.#dir = dir;
  }

  /** Creates a package of the launcher and a program that prints how it was started. */
  static async create(
    test: AfterTest,
    options: { readonly hasBundledNode: boolean },
  ): Promise<Installed> {
    const dir = await realpath(await tempDir(test, "launcher-"));
    await cp(LAUNCHER, join(dir, "bin/entrepot.cjs"));
    await mkdir(join(dir, "dist"));
    await writeFile(join(dir, "dist/main.js"), PROGRAM);
    await writeFile(join(dir, "old.cjs"), OLD_NODE);
    if (options.hasBundledNode) {
      const prefix = process.platform === "linux" ? "linux" : "bin-darwin";
      const bin = join(dir, `node_modules/node-${prefix}-${process.arch}/bin`);
      await mkdir(bin, { recursive: true });
      const script = `#!/bin/sh\nBUNDLED=yes exec '${process.execPath}' "$@"\n`;
      await writeFile(join(bin, "node"), script);
      await chmod(join(bin, "node"), 0o755);
    }
    return new Installed(test, dir);
  }

  start(args: readonly string[], isOld: boolean): Child {
    return new Child(this.#test, {
      command: process.execPath,
      args: [
        ...(isOld ? ["--require", join(this.#dir, "old.cjs")] : []),
        join(this.#dir, "bin/entrepot.cjs"),
        ...args,
      ],
      env: { MALLOC_ARENA_MAX: undefined, BUNDLED: undefined },
    });
  }
}

async function readStart(child: Child): Promise<Started> {
  return child.line((text) =>
    text.startsWith("{") ? (JSON.parse(text) as Started) : undefined,
  );
}

void describe("the launcher", () => {
  void it("replaces its own process on Node.js 24 and later, with the process flags", async (test) => {
    const installed = await Installed.create(test, { hasBundledNode: true });
    const child = installed.start(["exit", "3", "a b"], false);
    const started = await readStart(child);
    assert.equal(started.pid, child.pid);
    assert.equal(started.bundled, undefined);
    assert.equal(started.arenas, "1");
    assert.deepEqual(started.execArgv, FLAGS);
    assert.deepEqual(started.argv.slice(2), ["exit", "3", "a b"]);
    assert.deepEqual(await child.exited, { code: 3, signal: null });
  });

  void it("starts the bundled Node.js on an older one, and passes arguments and the exit code on", async (test) => {
    const installed = await Installed.create(test, { hasBundledNode: true });
    const child = installed.start(["exit", "3", "a b"], true);
    const started = await readStart(child);
    assert.equal(started.bundled, "yes");
    assert.equal(started.arenas, "1");
    assert.deepEqual(started.execArgv, FLAGS);
    assert.deepEqual(started.argv.slice(2), ["exit", "3", "a b"]);
    assert.deepEqual(await child.exited, { code: 3, signal: null });
    assert.equal(child.lines.length, 1, child.output());
  });

  void it("forwards SIGHUP and SIGTERM to the bundled Node.js", async (test) => {
    const installed = await Installed.create(test, { hasBundledNode: true });
    const child = installed.start(["wait"], true);
    await readStart(child);
    child.signal("SIGHUP");
    await child.line((text) => (text === "SIGHUP" ? true : undefined));
    child.signal("SIGTERM");
    assert.deepEqual(await child.exited, { code: 7, signal: null });
  });

  void it("ends by the signal that ended the bundled Node.js", async (test) => {
    const installed = await Installed.create(test, { hasBundledNode: true });
    const child = installed.start(["wait"], true);
    const { pid } = await readStart(child);
    process.kill(pid, "SIGKILL");
    assert.deepEqual(await child.exited, { code: null, signal: "SIGKILL" });
  });

  void it("prints one line and exits with 2 if no Node.js is new enough", async (test) => {
    const installed = await Installed.create(test, { hasBundledNode: false });
    const child = installed.start(["serve"], true);
    assert.deepEqual(await child.exited, { code: 2, signal: null });
    assert.deepEqual(child.lines, [
      {
        stream: "stderr",
        text: "entrepot: got Node.js 12.22.12; expected 24 or later: install it, or install entrepot with its optional dependencies",
      },
    ]);
  });

  void it("uses no syntax that is newer than ES5", async () => {
    const text = await readFile(LAUNCHER, "utf8");
    const code = text.replaceAll(/\/\/.*|\/\*[^]*?\*\/|"[^"\n]*"/g, '""');
    assert.doesNotMatch(
      code,
      /=>|`|\?\.|\?\?|\.\.\.|\b(?:const|let|class|async|await|import|export)\b|#(?!!)|,\s*\)/,
    );
  });
});
