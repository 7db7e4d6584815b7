import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/*
 * Preloaded into a mirror (`node --import`), it collects all garbage at SIGUSR2 and says what is left:
 * objects, and buffers beside the heap.
 */

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as (options: object) => void;
process.on("SIGUSR2", () => {
  collect({ type: "major", execution: "sync", flavor: "last-resort" });
  const { heapUsed, external } = process.memoryUsage();
  const liveBytes = heapUsed + external;
  process.stdout.write(`${JSON.stringify({ msg: "collected", liveBytes })}\n`);
});
