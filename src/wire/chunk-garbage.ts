import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** A young collection runs each time this many bytes of chunks were dropped. */
const COLLECT_EVERY_BYTES = 4 * 1024 * 1024;

/** Heap growth before a full marking, so that chunks that survive a young collection do not start one. */
const HEAP_GROWING_PERCENT = 100;

type Collect = (options: { readonly type: "minor" }) => void;

let collect: Collect | undefined;
let passedBytes = 0;

/**
 * Counts dropped chunks of a body and triggers young collections.
 *
 * Node allocates a buffer for each read of a socket. V8 counts these bytes towards the limit of the old
 * generation, which is some 10 MiB above the size of a small heap, although the buffers die young. V8
 * starts a young collection only every 50 MiB, so it reached the limit first and marked the whole heap
 * again and again, which took as much CPU time as the download itself. A young collection every few MiB
 * takes a third of a millisecond and leaves nothing to mark.
 */
export function countPassingBytes(bytes: number): void {
  passedBytes += bytes;
  if (passedBytes < COLLECT_EVERY_BYTES) return;
  passedBytes = 0;
  collect ??= findCollect();
  collect({ type: "minor" });
}

/** Only new contexts see a flag that is set after the start. */
function findCollect(): Collect {
  setFlagsFromString("--expose-gc");
  const found: unknown = runInNewContext("gc");
  setFlagsFromString("--no-expose-gc");
  setFlagsFromString(`--heap-growing-percent=${HEAP_GROWING_PERCENT}`);
  return typeof found === "function" ? (found as Collect) : () => undefined;
}
