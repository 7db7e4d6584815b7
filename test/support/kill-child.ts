/*
 * Runs one scenario over a storage root after a line on standard input, so that a tracer sees nothing
 * of the program's own start.
 */
import { enableCompileCache } from "node:module";

enableCompileCache();
process.env["UV_THREADPOOL_SIZE"] = "1";
const { lstat } = await import("node:fs");
const { KILL_SCENARIOS } = await import("./kill-scenarios.ts");
const { HOSTED_KILL_SCENARIOS, runHosted } =
  await import("./hosted-kill-scenarios.ts");

const { TAKEOVER_KILL_SCENARIOS } =
  await import("./takeover-kill-scenarios.ts");

const { IMPORT_KILL_SCENARIOS } = await import("./import-kill-scenarios.ts");

const [name, root = ""] = process.argv.slice(2);
const scenario = KILL_SCENARIOS.find((one) => one.name === name);
const hosted = HOSTED_KILL_SCENARIOS.find((one) => one.name === name);
const run =
  hosted === undefined
    ? (
        scenario ??
        [...TAKEOVER_KILL_SCENARIOS, ...IMPORT_KILL_SCENARIOS].find(
          (one) => one.name === name,
        )
      )?.run
    : (path: string) => runHosted(path, hosted);
if (run === undefined) throw new Error(`no scenario ${name}`);
// Starts the pool's thread before its calls are counted.
lstat(root, () => process.stdout.write("ready\n"));
process.stdin.once("data", () => {
  void run(root).then(() => process.exit(0));
});
