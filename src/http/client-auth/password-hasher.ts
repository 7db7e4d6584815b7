import { Worker } from "node:worker_threads";
import type { CompareReply, CompareRequest } from "./bcrypt-worker.ts";

/** Compares passwords with bcrypt hashes, off the main thread. */
export interface PasswordHasher {
  /** @returns undefined where too many wait already */
  compare(password: string, hash: string): Promise<boolean> | undefined;
  /** Answers those that wait, then closes; whoever calls it asks for nothing more. */
  retire(): Promise<void>;
  /** Those that wait are rejected. */
  close(): Promise<void>;
}

/** Two at once leave the other cores, and with their low priority these too, to the answers. */
const MAX_THREADS = 2;
const MAX_WAITING = 64;
/** A thread that had nothing to do for so long gives its memory back. */
const IDLE_MS = 60_000;

interface Job {
  readonly password: string;
  readonly hash: string;
  readonly resolve: (isSame: boolean) => void;
  readonly reject: (error: Error) => void;
}

interface Thread {
  readonly worker: Worker;
  job: Job | undefined;
  idle: NodeJS.Timeout | undefined;
}

/** Starts no thread before the first password comes. */
export function createPasswordHasher(
  startWorker: () => Worker = startBcryptWorker,
): PasswordHasher {
  const threads = new Set<Thread>();
  const waiting: Job[] = [];
  const unsettled = new Set<Promise<boolean>>();
  let isClosed = false;

  const end = (thread: Thread): void => {
    threads.delete(thread);
    clearTimeout(thread.idle);
    void thread.worker.terminate();
  };
  const run = (thread: Thread): void => {
    clearTimeout(thread.idle);
    thread.job = waiting.shift();
    if (thread.job === undefined) {
      thread.idle = setTimeout(() => end(thread), IDLE_MS);
      thread.idle.unref();
      return;
    }
    const { password, hash } = thread.job;
    const request: CompareRequest = { password, hash };
    thread.worker.postMessage(request, []);
  };
  /** Where no thread can be had nobody waits for one. */
  const start = (): void => {
    let worker: Worker;
    try {
      worker = startWorker();
    } catch (error) {
      if (threads.size > 0) return;
      const cause = error instanceof Error ? error : new Error(String(error));
      for (const job of waiting.splice(0)) job.reject(cause);
      return;
    }
    const thread: Thread = {
      worker,
      job: undefined,
      idle: undefined,
    };
    threads.add(thread);
    thread.worker.unref();
    thread.worker.on("message", ({ isSame }: CompareReply) => {
      const { job } = thread;
      thread.job = undefined;
      job?.resolve(isSame);
      run(thread);
    });
    const fail = (error: Error): void => {
      if (!threads.delete(thread)) return;
      thread.job?.reject(error);
      if (waiting.length > 0 && !isClosed) start();
    };
    thread.worker.on("error", fail);
    thread.worker.on("exit", () => fail(new Error("the thread has ended")));
    run(thread);
  };

  const close = async (): Promise<void> => {
    isClosed = true;
    const ended = [...threads].map(({ worker }) => worker.terminate());
    for (const job of waiting.splice(0)) {
      job.reject(new Error("the mirror stops"));
    }
    await Promise.all(ended);
  };

  return {
    compare(password, hash) {
      if (isClosed || waiting.length >= MAX_WAITING) return undefined;
      const { promise, resolve, reject } = Promise.withResolvers<boolean>();
      unsettled.add(promise);
      const settle = (): void => void unsettled.delete(promise);
      promise.then(settle, settle);
      waiting.push({ password, hash, resolve, reject });
      const free = [...threads].find(({ job }) => job === undefined);
      if (free !== undefined) run(free);
      else if (threads.size < MAX_THREADS) start();
      return promise;
    },
    async retire() {
      await Promise.allSettled(unsettled);
      await close();
    },
    close,
  };
}

/** Runs from the sources (`.ts`) and from the build (`.js`): the compiler rewrites imports, but no URLs. */
export function startBcryptWorker(): Worker {
  const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."));
  return new Worker(new URL(`./bcrypt-worker${extension}`, import.meta.url), {
    name: "bcrypt",
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 2 },
  });
}
