import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Bytes of chunks from the network after which those that are done with are given back. */
const COLLECT_EVERY_BYTES = 4 * 1024 * 1024;

/** From where the heap is marked: chunks that outlive a young collection find room below. */
const HEAP_GROWING_PERCENT = 100;

type Collect = (options: { readonly type: "minor" }) => void;

let collect: Collect | undefined;
let passedBytes = 0;

/**
 * Counts chunks of a body that nobody will hold for long.
 *
 * Node gives each read of a socket a buffer of its own. V8 counts their bytes towards the limit of
 * the old generation, some 10 MiB above what a small heap holds, although they die young: a young
 * collection comes only every 50 MiB of them, so that before it the whole heap was marked, again
 * and again, for as much processor time as the download itself. A young collection every few MiB
 * takes a third of a millisecond and leaves nothing to mark.
 */
export function countPassingBytes(bytes: number): void {
  passedBytes += bytes;
  if (passedBytes < COLLECT_EVERY_BYTES) return;
  passedBytes = 0;
  collect ??= findCollect();
  collect({ type: "minor" });
}

/** A flag that is set late is seen by new contexts alone. */
function findCollect(): Collect {
  setFlagsFromString("--expose-gc");
  const found: unknown = runInNewContext("gc");
  setFlagsFromString("--no-expose-gc");
  setFlagsFromString(`--heap-growing-percent=${HEAP_GROWING_PERCENT}`);
  return typeof found === "function" ? (found as Collect) : () => undefined;
}
