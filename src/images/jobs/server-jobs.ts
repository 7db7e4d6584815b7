import { setTimeout as delay } from "node:timers/promises";
import { Refusal } from "../../mirror/answers.ts";
import { RegistryError } from "../../oci/errors.ts";
import type { KeptRecords } from "../../storage/kept-records.ts";
import {
  type Clock,
  type Schedule,
  scheduleUnref,
} from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import {
  type Job,
  type JobChange,
  type JobKind,
  type JobPage,
  type JobRun,
  type Jobs,
  type JobState,
  type JobWork,
} from "./job.ts";
import { changeOf, JobChanges } from "./job-changes.ts";
import { JobEntry } from "./job-entry.ts";
import { JobList } from "./job-list.ts";
import { endedRecord, JobRecords, unfinishedRecord } from "./kept-job.ts";

/** Jobs without tracked work that have begun: one that works, the others wait for a pull budget. */
const MAX_BEGUN = 8;
/** Jobs that wait or run, without tracked work. */
const MAX_QUEUED = 100;
/** Of the requests of those jobs together, in characters. */
const MAX_REQUESTS = 64 * 1024 * 1024;
/** Imports and exports that run at the same time. */
const MAX_TRACKED = 32;
const LOAD_RETRY_MS = 10_000;
const STOP_PATIENCE_MS = 10_000;

export interface ServerJobsOptions {
  readonly records: KeptRecords;
  /** Loads the work of a kind when its first job runs. */
  readonly works: Readonly<Partial<Record<JobKind, () => Promise<JobWork>>>>;
  readonly clock: Pick<Clock, "nowMs">;
  readonly log: Pick<Logger, "info" | "warn" | "error">;
  readonly schedule?: Schedule;
}

/**
 * The jobs of a server. Those with a kept request begin one after another, in the order of their starts;
 * one that waits for a pull budget gives its turn to the next, and continues beside it when its wait has
 * ended. The requests are in the index until their job has ended, so that the next start of the server
 * continues those that a stop or a crash interrupted.
 */
export class ServerJobs implements Jobs {
  readonly #options: ServerJobsOptions;
  readonly #schedule: Schedule;
  readonly #changes: JobChanges;
  readonly #records: JobRecords;
  readonly #list = new JobList();
  /** Work that has not ended, of jobs and of requests. */
  readonly #running = new Set<Promise<unknown>>();
  /** Jobs with a kept request whose work has not ended. */
  readonly #begun = new Set<JobEntry>();
  #loading: Promise<void> | undefined;
  #cancelRetry: (() => void) | undefined;
  #mayRun = false;
  #isStopping = false;

  constructor(options: ServerJobsOptions) {
    this.#options = options;
    this.#schedule = options.schedule ?? scheduleUnref;
    this.#changes = new JobChanges(this.#schedule);
    this.#records = new JobRecords(options.records, options.log);
  }

  /** Reads the kept jobs if the index can be read now. Nothing runs before {@link resume}. */
  async open(): Promise<void> {
    await this.#load().catch(() => undefined);
  }

  /**
   * Runs the jobs that the last process left and those that were started since, once the index can be
   * read. Called when the index is complete: before, work would fetch what is stored already.
   */
  async resume(): Promise<void> {
    if (this.#isStopping) return;
    this.#mayRun = true;
    this.#runNext();
    try {
      await this.#load();
    } catch (error) {
      this.#options.log.warn({ err: error }, "could not read the kept jobs");
      this.#cancelRetry = this.#schedule(
        () => void this.resume(),
        LOAD_RETRY_MS,
      );
    }
  }

  /** Interrupts all work; kept jobs continue at the next start. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#cancelRetry?.();
    for (const entry of this.#list.unfinished) entry.interrupt();
    const ended = Promise.allSettled(this.#running);
    if (!(await isSettledWithin(ended, STOP_PATIENCE_MS))) {
      this.#options.log.warn("stopped without the end of a running job");
    }
    await this.#records.settled();
  }

  async start(kind: "warm", request: unknown): Promise<Job> {
    const text = JSON.stringify(request);
    // Ids continue after those of earlier processes.
    await this.#load();
    this.#checkQueue(text.length);
    const entry = this.#add(kind);
    entry.request = text;
    try {
      await this.#records.write([unfinishedRecord(entry, text)]);
    } catch (error) {
      this.#list.drop(entry);
      throw error;
    }
    entry.isKept = true;
    if (entry.state === "cancelled") await this.#end(entry, "cancelled");
    else this.#changes.report(entry);
    this.#runNext();
    return entry.view();
  }

  async track<T>(
    kind: Exclude<JobKind, "warm">,
    signal: AbortSignal,
    work: (run: JobRun) => Promise<T>,
  ): Promise<T> {
    if (this.#isStopping) {
      throw new RegistryError("UNAVAILABLE", { detail: "the server stops" });
    }
    const tracked = this.#list.unfinished.filter(
      (entry) => entry.kind !== "warm",
    );
    if (tracked.length >= MAX_TRACKED) {
      throw tooMany(
        `got another import or export; expected at most ${MAX_TRACKED} at a time: try again later`,
      );
    }
    const entry = this.#add(kind);
    const leave = (): void => this.#cancelWork(entry);
    signal.addEventListener("abort", leave, { once: true });
    if (signal.aborted) leave();
    try {
      return await this.#note(this.#perform(entry, work));
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  get(id: string): Job | undefined {
    return this.#list.get(id)?.view();
  }

  list(page: {
    readonly n: number;
    readonly last: string | undefined;
  }): JobPage {
    return this.#list.page(page.n, page.last);
  }

  async cancel(id: string): Promise<Job | undefined> {
    const entry = this.#list.get(id);
    if (entry === undefined || entry.hasEnded) return entry?.view();
    const isQueued = entry.state === "queued";
    this.#cancelWork(entry);
    if (entry.isKept) {
      // Written before the work has ended: the job must not continue after a crash either.
      await (isQueued
        ? this.#end(entry, "cancelled")
        : this.#records.write([
            endedRecord({ ...entry.view(), endedAt: this.#now() }),
          ]));
    }
    return entry.view();
  }

  subscribe(listener: (change: JobChange) => void): () => void {
    return this.#changes.subscribe(listener);
  }

  changesSince(number: number): readonly JobChange[] {
    this.#changes.flush();
    return this.#list.changedSince(number).map(changeOf);
  }

  #load(): Promise<void> {
    this.#loading ??= this.#restore().catch((error: unknown) => {
      this.#loading = undefined;
      throw error;
    });
    return this.#loading;
  }

  async #restore(): Promise<void> {
    for (const kept of await this.#records.readAll()) {
      this.#list.restore(
        "ended" in kept
          ? JobEntry.ended(kept.ended)
          : JobEntry.unfinished(kept, this.#onProgress),
      );
    }
    this.#runNext();
  }

  #checkQueue(length: number): void {
    const queued = this.#list.unfinished.filter(({ kind }) => kind === "warm");
    if (queued.length >= MAX_QUEUED) {
      throw tooMany(
        `got another job; expected at most ${MAX_QUEUED} that have not ended: wait, or cancel some`,
      );
    }
    const lengths = queued.map(({ request = "" }) => request.length);
    if (lengths.reduce((sum, each) => sum + each, length) > MAX_REQUESTS) {
      throw tooMany(
        `got lists of more than ${MAX_REQUESTS} characters in all jobs that have not ended: wait, or cancel some`,
      );
    }
  }

  #add(kind: JobKind): JobEntry {
    return this.#list.add(kind, this.#options.clock.nowMs(), this.#onProgress);
  }

  readonly #onProgress = (entry: JobEntry): void => {
    this.#changes.note(entry);
    if (entry.isWaiting) this.#runNext();
  };

  /** Starts the oldest queued job, unless one works or too many wait. */
  #runNext(): void {
    if (!this.#mayRun || this.#isStopping) return;
    if (this.#begun.size >= MAX_BEGUN) return;
    if ([...this.#begun].some(({ isWaiting }) => !isWaiting)) return;
    const entry = this.#list.unfinished.find(
      ({ isKept, state }) => isKept && state === "queued",
    );
    if (entry === undefined) return;
    this.#begun.add(entry);
    const running = this.#perform(entry, async (run) => {
      const load = this.#options.works[entry.kind];
      if (load === undefined) {
        throw new RegistryError("UNSUPPORTED", {
          detail: `this server has no work for a job of the kind ${entry.kind}`,
        });
      }
      const work = await load();
      await work(JSON.parse(entry.request ?? "null"), run);
    }).catch(() => undefined);
    void this.#note(running).then(() => {
      this.#begun.delete(entry);
      this.#runNext();
    });
  }

  /** Runs the work of a job and ends the job, except a kept one when the server stops. */
  async #perform<T>(
    entry: JobEntry,
    work: (run: JobRun) => Promise<T>,
  ): Promise<T> {
    const { log } = this.#options;
    const run = entry.begin(this.#now());
    this.#changes.report(entry);
    log.info(
      { job: entry.id, kind: entry.kind },
      "started a job of the server",
    );
    try {
      run.signal.throwIfAborted();
      return await work(run);
    } catch (error) {
      if (!run.signal.aborted) {
        log.warn({ err: error, job: entry.id }, "a job of the server failed");
        entry.fail("", faultOf(error));
      }
      throw error;
    } finally {
      await this.#settle(entry).catch((error: unknown) => {
        log.warn(
          { err: error, job: entry.id },
          "could not record the end of a job",
        );
      });
    }
  }

  async #settle(entry: JobEntry): Promise<void> {
    if (entry.state === "cancelled") return this.#end(entry, "cancelled");
    // Work that was interrupted by the stop is not complete, even if it did not throw.
    if (entry.signal.aborted) {
      return entry.isKept ? undefined : this.#end(entry, "cancelled");
    }
    return this.#end(entry, entry.hasErrors ? "failed" : "done");
  }

  async #end(entry: JobEntry, state: JobState): Promise<void> {
    entry.end(state, this.#now());
    this.#changes.report(entry);
    const { id, kind, done, total, errorCount } = entry.view(0);
    this.#options.log.info(
      { job: id, kind, state, done, total, errors: errorCount },
      "ended a job of the server",
    );
    const { forgotten, trimmed } = this.#list.bound();
    await this.#records.write(
      [entry, ...trimmed].map((each) => endedRecord(each.view())),
      forgotten.map(({ id: old }) => old),
    );
  }

  #cancelWork(entry: JobEntry): void {
    if (entry.hasEnded || entry.state === "cancelled") return;
    entry.cancel();
    this.#changes.report(entry);
  }

  /** Lets a stop wait for work. */
  async #note<T>(running: Promise<T>): Promise<T> {
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  #now(): string {
    return new Date(this.#options.clock.nowMs()).toISOString();
  }
}

function tooMany(detail: string): RegistryError {
  return new RegistryError("TOOMANYREQUESTS", { detail });
}

/** Returns text of this program for the operator; the log has the whole error. */
function faultOf(error: unknown): string {
  const refused = error instanceof Refusal ? error.error : error;
  return refused instanceof RegistryError
    ? (refused.detail ?? refused.message)
    : "the work failed: see the log of the server";
}

async function isSettledWithin(
  work: Promise<unknown>,
  patienceMs: number,
): Promise<boolean> {
  const abort = new AbortController();
  const late = delay(patienceMs, false, { signal: abort.signal, ref: false });
  const isSettled = await Promise.race([
    work.then(() => true),
    late.catch(() => false),
  ]);
  abort.abort();
  return isSettled;
}
