import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/**
 * Gives back what loading and compiling the program left behind: V8 would keep it until the first
 * load, and a mirror that idles would be billed for it. Called once, before the first request;
 * it stops the process for some 30 ms and saves 10 MiB and more of resident memory.
 */
export function releaseStartupMemory(): void {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  setFlagsFromString("--no-expose-gc");
  if (typeof collect === "function") {
    collect({ type: "major", execution: "sync", flavor: "last-resort" });
  }
}
