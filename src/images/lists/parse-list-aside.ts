import { Worker } from "node:worker_threads";
import type { DraftList } from "./draft-list.ts";
import type { ListText, ParsedList } from "./list-entry.ts";

/** A list up to this size is parsed in a few hundredths of a second. */
const MAX_HERE_BYTES = 32 * 1024;
/** Far above what the largest list takes on a slow machine. */
const TIMEOUT_MS = 120_000;
const MAX_HEAP_MB = 768;

/**
 * Parses a list as `parseList` does, a large one in a thread of its own, which does not hold up the
 * main thread and has a limit of memory and of time.
 *
 * @throws the signal's reason; Error if no thread can be started
 */
export async function parseListAside(
  list: ListText,
  signal?: AbortSignal,
  startWorker: (list: ListText) => Worker = startListWorker,
): Promise<ParsedList> {
  signal?.throwIfAborted();
  if (Buffer.byteLength(list.text) <= MAX_HERE_BYTES) {
    const { parseList } = await import("./parse-list.ts");
    return parseList(list);
  }
  // Loaded with the first list: its patterns are compiled by a large library.
  const { completeList } = await import("./draft-list.ts");
  const worker = startWorker(list);
  const { promise, resolve, reject } = Promise.withResolvers<ParsedList>();
  const refuse = (limit: string): void =>
    resolve(
      refusal(
        list,
        `got a list that takes more than ${limit} to parse; expected several lists`,
      ),
    );
  const timer = setTimeout(() => refuse("two minutes"), TIMEOUT_MS);
  const abort = (): void => reject(signal?.reason as Error);
  signal?.addEventListener("abort", abort);
  worker.on("message", (draft: DraftList) => resolve(completeList(draft)));
  worker.on("error", (error: Error & { readonly code?: string }) => {
    if (error.code === "ERR_WORKER_OUT_OF_MEMORY") refuse("768 MB of memory");
    else reject(error);
  });
  worker.on("exit", () => reject(new Error("the thread has ended")));
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
    await worker.terminate();
  }
}

function refusal({ name }: ListText, message: string): ParsedList {
  return { entries: [], faults: [{ origin: `${name}:1`, message }], notes: [] };
}

/** Finds the program in the sources (`.ts`) and in the build (`.js`): the compiler rewrites imports, not URLs. */
function startListWorker(list: ListText): Worker {
  const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."));
  return new Worker(new URL(`./list-worker${extension}`, import.meta.url), {
    name: "list",
    execArgv: [],
    workerData: list,
    resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
  });
}
