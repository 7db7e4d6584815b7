import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/*
 * Preloaded into a mirror (`node --import`), it collects all garbage at SIGUSR2 and says so: what is
 * resident then is what is held, and not what the collector has not come to yet.
 */

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as (options: object) => void;
process.on("SIGUSR2", () => {
  collect({ type: "major", execution: "sync", flavor: "last-resort" });
  process.stdout.write(`{"msg":"collected"}\n`);
});
