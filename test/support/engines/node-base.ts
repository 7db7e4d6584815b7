import { existsSync } from "node:fs";
import {
  copyFile,
  cp,
  mkdir,
  readFile,
  realpath,
  symlink,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import type { AfterTest } from "../after-test.ts";
import { runCommand } from "../run-command.ts";
import { tempDir } from "../temp-dir.ts";

/** The machine's authorities, which include that of a proxy that intercepts TLS. */
const AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt";

/** Long enough for a slow package archive. */
const INSTALL_TIMEOUT_MS = 300_000;

/**
 * Builds a replacement for Node.js's own image, which tests can't pull: Debian's minimal system with
 * the Node.js that runs the tests and the machine's npm.
 *
 * @returns path of a tar file of the root
 */
export async function makeNodeBase(test: AfterTest): Promise<string> {
  const dir = await tempDir(test, "node-base-");
  const root = join(dir, "root");
  await runCommand(
    "debootstrap",
    [
      "--variant=minbase",
      // Node.js 26 is linked against libatomic.
      "--include=ca-certificates,libatomic1",
      "bookworm",
      root,
    ],
    { timeoutMs: INSTALL_TIMEOUT_MS },
  );
  const local = join(root, "usr/local");
  await copyFile(process.execPath, join(local, "bin/node"));
  await installNpm(local);
  if (existsSync(AUTHORITIES)) {
    await copyFile(AUTHORITIES, join(root, AUTHORITIES));
  }
  const tar = join(dir, "root.tar");
  await runCommand("tar", [
    "--create",
    `--file=${tar}`,
    `--directory=${root}`,
    "--exclude=./var/cache/apt",
    "--exclude=./var/lib/apt/lists",
    ".",
  ]);
  return tar;
}

async function installNpm(local: string): Promise<void> {
  const { stdout } = await runCommand("sh", ["-c", "command -v npm"]);
  // …/npm/bin/npm-cli.js
  const npm = dirname(dirname(await realpath(stdout.trim())));
  const modules = join(local, "lib/node_modules");
  await mkdir(modules, { recursive: true });
  await cp(npm, join(modules, "npm"), { recursive: true });
  await symlink(
    "../lib/node_modules/npm/bin/npm-cli.js",
    join(local, "bin/npm"),
  );
}

/**
 * Returns the tag of a Dockerfile's base image, for example `node:26-bookworm-slim`, without its
 * digest: a base that is built here has another one.
 */
export async function readNodeImage(dockerfile: string): Promise<string> {
  const text = await readFile(dockerfile, "utf8");
  const [, name] =
    /^ARG NODE_IMAGE=([^\s@]+)@sha256:[0-9a-f]{64}$/m.exec(text) ?? [];
  if (name === undefined) throw new Error(`${dockerfile} names no base`);
  return name;
}
