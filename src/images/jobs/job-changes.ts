import type { Schedule } from "../../telemetry/clock.ts";
import { type JobChange, MAX_LISTED_ERRORS } from "./job.ts";
import type { JobEntry } from "./job-entry.ts";

/** Work may report every chunk of every blob. */
const REPORT_EVERY_MS = 250;

/** Numbers the changes of jobs and passes them to subscribers: a new state immediately, progress in batches. */
export class JobChanges {
  readonly #schedule: Schedule;
  readonly #listeners = new Set<(change: JobChange) => void>();
  /** Jobs with changes that subscribers have not received. */
  readonly #waiting = new Set<JobEntry>();
  #cancel: (() => void) | undefined;
  #latest = 0;

  constructor(schedule: Schedule) {
    this.#schedule = schedule;
  }

  subscribe(listener: (change: JobChange) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Notes new progress of a job. */
  note(entry: JobEntry): void {
    this.#waiting.add(entry);
    this.#cancel ??= this.#schedule(() => this.flush(), REPORT_EVERY_MS);
  }

  /** Passes a job on now. */
  report(entry: JobEntry): void {
    this.#waiting.delete(entry);
    entry.change = ++this.#latest;
    const change = changeOf(entry);
    for (const listener of this.#listeners) listener(change);
  }

  /** Passes on the progress that waits. */
  flush(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    for (const entry of this.#waiting) this.report(entry);
  }
}

export function changeOf(entry: JobEntry): JobChange {
  return { job: entry.view(MAX_LISTED_ERRORS), number: entry.change };
}
