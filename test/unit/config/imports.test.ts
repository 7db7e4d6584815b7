import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { makeConfigFolder } from "../../support/config-folder.ts";

const LOAD = join(import.meta.dirname, "../../../src/config/load.ts");

/** Returns the packages that a separate process has loaded with a configuration. */
const SCRIPT = `
import { createRequire } from "node:module";
import { loadConfig } from ${JSON.stringify(LOAD)};
const [configFile] = process.argv.slice(1);
const result = await loadConfig({ configFile, env: {}, cwd: "/", home: "/", systemConfigFile: "/nowhere" });
if (!result.ok) throw new Error("faulty");
const files = Object.keys(createRequire(import.meta.url).cache);
const names = files.map((file) => file.split("/node_modules/").at(-1).split("/")[0]);
console.log(JSON.stringify([...new Set(names)].sort()));
`;

const AJV = ["ajv", "fast-deep-equal", "fast-uri", "json-schema-traverse"];

async function loadedPackages(...args: string[]): Promise<unknown> {
  const { stdout } = await promisify(execFile)(process.execPath, [
    "--input-type=module",
    "--eval",
    SCRIPT,
    ...args,
  ]);
  return JSON.parse(stdout);
}

void test("a start without a file loads ajv, which fastify loads anyway, and no YAML parser", async () => {
  assert.deepEqual(await loadedPackages(), AJV);
});

void test("a start with a file also loads the YAML parser, and nothing else", async (t) => {
  const folder = await makeConfigFolder(t);
  const file = await folder.write("c.yaml", "offline: true\n");
  assert.deepEqual(await loadedPackages(file), [...AJV, "yaml"]);
});
