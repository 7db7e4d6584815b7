import { Worker } from "node:worker_threads";
import type { CompareReply, CompareRequest } from "./bcrypt-worker.ts";

/** Compares passwords with bcrypt hashes, off the main thread. */
export interface PasswordHasher {
  /** @returns undefined if too many comparisons are waiting */
  compare(password: string, hash: string): Promise<boolean> | undefined;
  /** Finishes the waiting comparisons, then closes. The caller starts no more of them. */
  retire(): Promise<void>;
  /** Rejects the waiting comparisons and ends the threads. */
  close(): Promise<void>;
}

/** Two threads of low priority leave CPU time for responses. */
const MAX_THREADS = 2;
const MAX_WAITING = 64;
/** A thread that was idle for this time is ended, which frees its memory. */
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

/** Starts its first thread with the first comparison. */
export function createPasswordHasher(
  startWorker: () => Worker = startBcryptWorker,
): PasswordHasher {
  const threads = new HasherThreads(startWorker);
  const unsettled = new Set<Promise<boolean>>();
  return {
    compare(password, hash) {
      if (threads.isFull) return undefined;
      const { promise, resolve, reject } = Promise.withResolvers<boolean>();
      unsettled.add(promise);
      const settle = (): void => void unsettled.delete(promise);
      promise.then(settle, settle);
      threads.add({ password, hash, resolve, reject });
      return promise;
    },
    async retire() {
      await Promise.allSettled(unsettled);
      await threads.close();
    },
    close: () => threads.close(),
  };
}

/** The threads and the jobs that wait for one. */
class HasherThreads {
  readonly #startWorker: () => Worker;
  readonly #threads = new Set<Thread>();
  readonly #waiting: Job[] = [];
  #isClosed = false;

  constructor(startWorker: () => Worker) {
    this.#startWorker = startWorker;
  }

  get isFull(): boolean {
    return this.#isClosed || this.#waiting.length >= MAX_WAITING;
  }

  add(job: Job): void {
    this.#waiting.push(job);
    const free = [...this.#threads].find((thread) => thread.job === undefined);
    if (free !== undefined) this.#runNext(free);
    else if (this.#threads.size < MAX_THREADS) this.#start();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    const ended = [...this.#threads].map(({ worker }) => worker.terminate());
    this.#rejectWaiting(new Error("the mirror stops"));
    await Promise.all(ended);
  }

  /** Rejects the waiting jobs if no thread runs and none can be started. */
  #start(): void {
    let worker: Worker;
    try {
      worker = this.#startWorker();
    } catch (error) {
      if (this.#threads.size > 0) return;
      this.#rejectWaiting(
        error instanceof Error ? error : new Error(String(error)),
      );
      return;
    }
    const thread: Thread = { worker, job: undefined, idle: undefined };
    this.#threads.add(thread);
    worker.unref();
    worker.on("message", ({ isSame }: CompareReply) => {
      const { job } = thread;
      thread.job = undefined;
      job?.resolve(isSame);
      this.#runNext(thread);
    });
    const fail = (error: Error): void => {
      if (!this.#threads.delete(thread)) return;
      thread.job?.reject(error);
      if (this.#waiting.length > 0 && !this.#isClosed) this.#start();
    };
    worker.on("error", fail);
    worker.on("exit", () => fail(new Error("the thread has ended")));
    this.#runNext(thread);
  }

  #runNext(thread: Thread): void {
    clearTimeout(thread.idle);
    thread.job = this.#waiting.shift();
    if (thread.job === undefined) {
      thread.idle = setTimeout(() => this.#end(thread), IDLE_MS);
      thread.idle.unref();
      return;
    }
    const { password, hash } = thread.job;
    const request: CompareRequest = { password, hash };
    thread.worker.postMessage(request, []);
  }

  #end(thread: Thread): void {
    this.#threads.delete(thread);
    clearTimeout(thread.idle);
    void thread.worker.terminate();
  }

  #rejectWaiting(error: Error): void {
    for (const job of this.#waiting.splice(0)) job.reject(error);
  }
}

/** Finds the program in the sources (`.ts`) and in the build (`.js`): the compiler rewrites imports, not URLs. */
export function startBcryptWorker(): Worker {
  const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."));
  return new Worker(new URL(`./bcrypt-worker${extension}`, import.meta.url), {
    name: "bcrypt",
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 2 },
  });
}
