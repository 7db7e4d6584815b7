/*
 * Runs one scenario over a storage root when it is told to on its standard input, so that whoever
 * traces it sees nothing of the program's own start.
 */
import { enableCompileCache } from "node:module";

enableCompileCache();
process.env["UV_THREADPOOL_SIZE"] = "1";
const { lstat } = await import("node:fs");
const { KILL_SCENARIOS } = await import("./kill-scenarios.ts");

const [name, root = ""] = process.argv.slice(2);
const scenario = KILL_SCENARIOS.find((one) => one.name === name);
if (scenario === undefined) throw new Error(`no scenario ${name}`);
// The pool's thread is there before anybody counts its calls.
lstat(root, () => process.stdout.write("ready\n"));
process.stdin.once("data", () => {
  void scenario.run(root).then(() => process.exit(0));
});
