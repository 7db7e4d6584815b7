import { Worker } from "node:worker_threads";
import { type FileIdentity, identifyFileNow } from "../root/file-identity.ts";
import type {
  IndexWork,
  IndexWorkerData,
  IndexWorkReply,
} from "./index-worker.ts";
import { IndexError } from "../../metadata-index.ts";
import { type Schedule, scheduleUnref } from "../../../telemetry/clock.ts";

/** A checkpoint comes so long after the first write since the last one. */
const CHECKPOINT_AFTER_MS = 5_000;
/** Or at once after so many writes: the log must not grow without bound. */
const CHECKPOINT_AFTER_WRITES = 1_000;
/** The thread costs some megabytes, and an idle mirror has no use for it. */
const IDLE_MS = 60_000;

type Ask = IndexWork extends infer W
  ? W extends IndexWork
    ? Omit<W, "reply">
    : never
  : never;

/** What is done for the index beside the thread that serves requests. */
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

  /** @param path of an index that is open in WAL mode */
  constructor(path: string, schedule: Schedule = scheduleUnref) {
    this.#path = path;
    this.#identity = identifyFileNow(path);
    this.#schedule = schedule;
  }

  /** Something was written to the index. */
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
   * Reads the whole file for damage.
   *
   * @returns what is wrong, one text a fault
   * @throws IndexError when it could not be read through
   */
  findDamage(isQuick: boolean): Promise<readonly string[]> {
    return this.#ask({ ask: "find-damage", isQuick });
  }

  /** Ends the thread. What it was asked fails. */
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
    // What fails now, on a full disk or for a reader, is done by a later one.
    void this.#ask({ ask: "checkpoint" })
      .catch(() => undefined)
      .finally(() => {
        this.#isChecking = false;
      });
  }

  #ask(ask: Ask): Promise<readonly string[]> {
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
      // Somebody waits for an answer, so the loop must live until it is there.
      this.#worker.ref();
      this.#worker.postMessage({ ...ask, reply: this.#lastReply }, []);
    } catch (error) {
      waiter.reject(
        new IndexError("no thread for the index", { cause: error }),
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
    else waiter?.reject(new IndexError(`the index's thread: ${code}`));
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
      waiter.reject(new IndexError("the index's thread ended", { cause }));
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
