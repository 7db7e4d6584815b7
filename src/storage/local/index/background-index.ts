import { Worker } from "node:worker_threads";
import { type FileIdentity, identifyFileNow } from "../root/file-identity.ts";
import type {
  IndexWork,
  IndexWorkerData,
  IndexWorkReply,
} from "./index-worker.ts";
import { IndexError } from "../../metadata-index.ts";
import { type Schedule, scheduleUnref } from "../../../telemetry/clock.ts";

/** Delay of a checkpoint after the first write since the last checkpoint. */
const CHECKPOINT_AFTER_MS = 5_000;
/** This many writes start a checkpoint immediately, which bounds the size of the log. */
const CHECKPOINT_AFTER_WRITES = 1_000;
/** The thread, which takes some megabytes, ends after this time without work. */
const IDLE_MS = 60_000;

type WorkRequest = IndexWork extends infer W
  ? W extends IndexWork
    ? Omit<W, "reply">
    : never
  : never;

/** Runs checkpoints and integrity checks of the index in a worker thread. */
export class BackgroundIndex {
  readonly #path: string;
  readonly #identity: FileIdentity | undefined;
  readonly #schedule: Schedule;
  readonly #waiters = new Map<
    number,
    PromiseWithResolvers<readonly string[]>
  >();
  #worker: Worker | undefined;
  #lastReply = 0;
  #writes = 0;
  #cancelCheckpoint: (() => void) | undefined;
  #cancelIdle: (() => void) | undefined;
  #isChecking = false;
  #isClosed = false;

  /** @param path the file of an index that is open in WAL mode */
  constructor(path: string, schedule: Schedule = scheduleUnref) {
    this.#path = path;
    this.#identity = identifyFileNow(path);
    this.#schedule = schedule;
  }

  /** Schedules a checkpoint after a write. */
  noteWrite(): void {
    if (this.#isClosed) return;
    this.#writes += 1;
    if (this.#writes === CHECKPOINT_AFTER_WRITES) this.#checkpointNow();
    this.#cancelCheckpoint ??= this.#schedule(
      () => this.#checkpointNow(),
      CHECKPOINT_AFTER_MS,
    );
  }

  /**
   * Checks the whole file for damage.
   *
   * @returns one text for each fault
   * @throws IndexError if the file could not be read completely
   */
  findDamage(isQuick: boolean): Promise<readonly string[]> {
    return this.#request({ kind: "find-damage", isQuick });
  }

  /** Ends the thread. Its unfinished work rejects. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelCheckpoint?.();
    this.#cancelIdle?.();
    await this.#end();
  }

  #checkpointNow(): void {
    this.#cancelCheckpoint?.();
    this.#cancelCheckpoint = undefined;
    this.#writes = 0;
    if (this.#isChecking || this.#isClosed) return;
    this.#isChecking = true;
    // A later checkpoint completes one that fails, for example on a full disk.
    void this.#request({ kind: "checkpoint" })
      .catch(() => undefined)
      .finally(() => {
        this.#isChecking = false;
      });
  }

  #request(work: WorkRequest): Promise<readonly string[]> {
    if (this.#isClosed) {
      return Promise.reject(new IndexError("the index is closed"));
    }
    const waiter = Promise.withResolvers<readonly string[]>();
    this.#lastReply += 1;
    this.#cancelIdle?.();
    this.#cancelIdle = undefined;
    try {
      this.#worker ??= this.#start();
      this.#waiters.set(this.#lastReply, waiter);
      // Keeps the event loop alive until the reply.
      this.#worker.ref();
      this.#worker.postMessage({ ...work, reply: this.#lastReply }, []);
    } catch (error) {
      waiter.reject(
        new IndexError("could not start the index worker", { cause: error }),
      );
    }
    return waiter.promise;
  }

  #start(): Worker {
    const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."));
    const worker = new Worker(
      new URL(`./index-worker${extension}`, import.meta.url),
      {
        name: "index",
        workerData: {
          path: this.#path,
          identity: this.#identity,
        } satisfies IndexWorkerData,
        execArgv: [],
        resourceLimits: {
          maxOldGenerationSizeMb: 64,
          maxYoungGenerationSizeMb: 2,
        },
      },
    );
    worker.unref();
    worker.on("message", (reply: IndexWorkReply) => this.#receive(reply));
    worker.on("error", (error) => this.#forget(worker, error));
    worker.on("exit", () => this.#forget(worker, undefined));
    return worker;
  }

  #receive({ reply, damage, code }: IndexWorkReply): void {
    const waiter = this.#waiters.get(reply);
    this.#waiters.delete(reply);
    if (code === undefined) waiter?.resolve(damage);
    else waiter?.reject(new IndexError(`the index worker failed with ${code}`));
    if (this.#waiters.size === 0) this.#worker?.unref();
    if (this.#waiters.size === 0 && !this.#isClosed) {
      this.#cancelIdle ??= this.#schedule(() => {
        this.#cancelIdle = undefined;
        void this.#end();
      }, IDLE_MS);
    }
  }

  #forget(worker: Worker, cause: unknown): void {
    if (this.#worker !== worker) return;
    this.#worker = undefined;
    for (const waiter of this.#waiters.values()) {
      waiter.reject(
        new IndexError("the index worker ended before its reply", { cause }),
      );
    }
    this.#waiters.clear();
  }

  async #end(): Promise<void> {
    const worker = this.#worker;
    if (worker === undefined) return;
    this.#forget(worker, undefined);
    await worker.terminate();
  }
}
