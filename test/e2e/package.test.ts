import assert from "node:assert/strict";
import { cp, mkdir, readFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { before, describe, it } from "node:test";
import { type AfterTest, afterSuite } from "../support/after-test.ts";
import { Child } from "../support/child-process.ts";
import { runCommand } from "../support/run-command.ts";
import { tempDir } from "../support/temp-dir.ts";

const PROJECT = join(import.meta.dirname, "../..");
/** Packages are downloaded. */
const INSTALL_TIMEOUT_MS = 300_000;
/** Each of a package that contains this Node.js; 20 is older than the program needs. */
const NODES = {
  20: "20.20.2",
  24: "24.22.3",
  26: "26.12.1",
} as const;
type Major = keyof typeof NODES;
const MAJORS = [20, 24, 26] as const;

const FREE_PORTS = {
  ENTREPOT_LISTEN: "127.0.0.1:0",
  ENTREPOT_OPERATOR__LISTEN: "127.0.0.1:0",
};

void describe("the packed package", () => {
  const suite = afterSuite();
  /** Folders of `node`, by major version. */
  const nodes = new Map<Major, string>();
  let version: string;
  let local: string;
  let prefix: string;
  let withoutBundled: string;

  before(async () => {
    const tarball = await pack(suite);
    for (const major of MAJORS) nodes.set(major, await getNode(suite, major));
    local = await tempDir(suite, "local-");
    await npm(local, ["install", tarball]);
    prefix = await tempDir(suite, "prefix-");
    await npm(prefix, ["install", "--global", `--prefix=${prefix}`, tarball]);
    withoutBundled = await tempDir(suite, "own-");
    await npm(withoutBundled, ["install", "--omit=optional", tarball]);
    ({ version } = JSON.parse(
      await readFile(join(PROJECT, "package.json"), "utf8"),
    ) as { readonly version: string });
  });

  /** The environment in which `node` is of a major version. */
  const env = (major: Major) => ({
    PATH: `${nodes.get(major)}${delimiter}${process.env["PATH"]}`,
  });

  for (const major of MAJORS) {
    void it(`runs on Node.js ${major} by npx`, async () => {
      const { stdout } = await runCommand("npx", ["entrepot", "--version"], {
        cwd: local,
        env: env(major),
      });
      assert.equal(stdout, `${version}\n`);
    });

    void it(`runs on Node.js ${major} by a global install, and ends at SIGTERM with 0`, async (test) => {
      const child = new Child(test, {
        command: join(prefix, "bin/entrepot"),
        args: ["serve"],
        cwd: await tempDir(test),
        env: { ...env(major), ...FREE_PORTS },
      });
      const host = await child.line(
        (line) => /"listen":\["(127\.0\.0\.1:\d+)"\]/.exec(line)?.[1],
      );
      assert.equal((await fetch(`http://${host}/v2/`)).status, 200);
      const exit = await child.terminate();
      assert.deepEqual(exit, { code: 0, signal: null }, child.output());
    });

    void it(`runs on Node.js ${major} by path`, async () => {
      const { stdout } = await runCommand(
        join(nodes.get(major) ?? "", "node"),
        [join(local, "node_modules/entrepot/bin/entrepot.cjs"), "--version"],
      );
      assert.equal(stdout, `${version}\n`);
    });
  }

  void it("without the bundled Node.js needs one that is new enough", async (test) => {
    const command = join(withoutBundled, "node_modules/.bin/entrepot");
    const child = new Child(test, {
      command,
      args: ["--version"],
      env: env(20),
    });
    assert.deepEqual(await child.exited, { code: 2, signal: null });
    assert.match(
      child.output(),
      /^entrepot: got Node\.js 20\.\d+\.\d+; expected 24 or later: .+$/,
    );
    const { stdout } = await runCommand(command, ["--version"], {
      env: env(24),
    });
    assert.equal(stdout, `${version}\n`);
  });
});

/** Builds and packs the project in a folder of its own; returns the path of the archive. */
async function pack(suite: AfterTest): Promise<string> {
  const staged = await tempDir(suite, "pack-");
  for (const name of [
    "package.json",
    "bin",
    "config",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
  ]) {
    await cp(join(PROJECT, name), join(staged, name), { recursive: true });
  }
  await runCommand(
    process.execPath,
    [
      "node_modules/typescript/bin/tsc",
      "-p",
      "tsconfig.build.json",
      "--outDir",
      join(staged, "dist"),
    ],
    { cwd: PROJECT },
  );
  const { stdout } = await runCommand("npm", ["pack", "--json"], {
    cwd: staged,
  });
  const [packed] = JSON.parse(stdout) as [{ readonly filename: string }];
  return join(staged, packed.filename);
}

/** Installs the package of a Node.js; returns the folder of its `node`. */
async function getNode(suite: AfterTest, major: Major): Promise<string> {
  const dir = await tempDir(suite, `node${major}-`);
  const name = `node-linux-${process.arch}`;
  await npm(dir, ["install", `${name}@${NODES[major]}`]);
  return dirname(join(dir, "node_modules", name, "bin/node"));
}

async function npm(cwd: string, args: readonly string[]): Promise<void> {
  await mkdir(cwd, { recursive: true });
  await runCommand("npm", [...args, "--no-audit", "--no-fund"], {
    cwd,
    timeoutMs: INSTALL_TIMEOUT_MS,
  });
}
