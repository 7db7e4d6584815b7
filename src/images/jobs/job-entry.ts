import { clip } from "../../telemetry/logger.ts";
import {
  type Job,
  type JobError,
  type JobKind,
  type JobProgress,
  type JobRun,
  type JobState,
  MAX_JOB_ERRORS,
  MAX_LISTED_ERRORS,
} from "./job.ts";

/** Images in work that a job reports; its work has no more at a time. */
const MAX_RUNNING_IMAGES = 64;

const NO_PROGRESS: JobProgress = {
  done: 0,
  total: 0,
  bytes: 0,
  bytesTotal: 0,
  running: [],
  waitsUntil: null,
};

/** The state of one job. */
export class JobEntry {
  readonly id: string;
  readonly kind: JobKind;
  /** The kept request as JSON, until the job has ended; undefined for tracked work. */
  request: string | undefined;
  /** Whether the index has the request, so that the job may run. */
  isKept = false;
  /** The number of the last change that subscribers received. */
  change = 0;
  readonly #abort = new AbortController();
  readonly #onChange: (entry: JobEntry) => void;
  #state: JobState = "queued";
  #progress = NO_PROGRESS;
  #errors: JobError[] = [];
  #errorCount = 0;
  #notes: JobError[] = [];
  #startedAt: string | null = null;
  #endedAt: string | null = null;

  constructor(
    job: Pick<Job, "id" | "kind">,
    onChange: (entry: JobEntry) => void,
  ) {
    this.id = job.id;
    this.kind = job.kind;
    this.#onChange = onChange;
  }

  /** Restores a job that has ended. */
  static ended(job: Job): JobEntry {
    const entry = new JobEntry(job, () => undefined);
    const { done, total, bytes, bytesTotal } = job;
    entry.#state = job.state;
    entry.#progress = { ...NO_PROGRESS, done, total, bytes, bytesTotal };
    entry.#errors = [...job.errors];
    entry.#errorCount = job.errorCount;
    entry.#notes = [...job.notes];
    entry.#startedAt = job.startedAt;
    entry.#endedAt = job.endedAt;
    return entry;
  }

  /** Restores a job that an earlier process did not finish. */
  static unfinished(
    job: Pick<Job, "id" | "kind"> & { readonly request: string },
    onChange: (entry: JobEntry) => void,
  ): JobEntry {
    const entry = new JobEntry(job, onChange);
    entry.request = job.request;
    entry.isKept = true;
    return entry;
  }

  get state(): JobState {
    return this.#state;
  }

  get hasEnded(): boolean {
    return this.#endedAt !== null;
  }

  get hasErrors(): boolean {
    return this.#errorCount > 0;
  }

  /** Whether the work waits for a pull budget, at least in part. */
  get isWaiting(): boolean {
    return this.#progress.waitsUntil !== null;
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Starts the job. @returns the side that its work sees */
  begin(startedAt: string): JobRun {
    if (this.#state === "queued") this.#state = "running";
    this.#startedAt = startedAt;
    return {
      id: this.id,
      signal: this.signal,
      report: (progress) => {
        if (this.hasEnded) return;
        const { running } = progress;
        this.#progress = {
          ...this.#progress,
          ...progress,
          ...(running && { running: running.slice(0, MAX_RUNNING_IMAGES) }),
        };
        this.#onChange(this);
      },
      fail: (ref, message) => this.fail(ref, message),
      note: (ref, message) => this.#note(ref, message),
    };
  }

  fail(ref: string, message: string): void {
    if (this.hasEnded) return;
    this.#errorCount += 1;
    add(this.#errors, ref, message);
    this.#onChange(this);
  }

  #note(ref: string, message: string): void {
    if (this.hasEnded) return;
    add(this.#notes, ref, message);
    this.#onChange(this);
  }

  /** Aborts the work without an end of the job: it continues after a restart. */
  interrupt(): void {
    this.#abort.abort(new Error("the server stops"));
  }

  cancel(): void {
    this.#state = "cancelled";
    this.#abort.abort(new Error("the job was cancelled"));
  }

  end(state: JobState, endedAt: string): void {
    this.#state = state;
    this.#endedAt = endedAt;
    this.#progress = { ...this.#progress, running: [], waitsUntil: null };
    this.request = undefined;
  }

  /** Drops most errors and notes of an older job. @returns whether it had more */
  trimErrors(): boolean {
    const long = [this.#errors, this.#notes].filter(
      ({ length }) => length > MAX_LISTED_ERRORS,
    );
    for (const texts of long) texts.length = MAX_LISTED_ERRORS;
    return long.length > 0;
  }

  /** Returns the job with at most so many of its errors, and of its notes. */
  view(errors = MAX_JOB_ERRORS): Job {
    return {
      id: this.id,
      kind: this.kind,
      state: this.#state,
      ...this.#progress,
      errors: this.#errors.slice(0, errors),
      errorCount: this.#errorCount,
      notes: this.#notes.slice(0, errors),
      startedAt: this.#startedAt,
      endedAt: this.#endedAt,
    };
  }
}

function add(texts: JobError[], ref: string, message: string): void {
  if (texts.length >= MAX_JOB_ERRORS) return;
  texts.push({ ref: clip(ref), message: clip(message) });
}
