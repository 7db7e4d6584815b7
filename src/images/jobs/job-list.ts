import { type JobKind, type JobPage, MAX_LISTED_ERRORS } from "./job.ts";
import { JobEntry } from "./job-entry.ts";

const MAX_ENDED = 100;
/** Ended jobs that keep all of their errors; older ones keep a few. */
const WITH_ALL_ERRORS = 10;
/** Nine characters of base 36: in the order of time until the year 5188. */
const ID_LENGTH = 9;
const ID = /^[0-9a-z]{9}$/;

/** The jobs of a server in memory: all that have not ended, and the last that did. */
export class JobList {
  readonly #entries = new Map<string, JobEntry>();
  #lastIdMs = 0;

  /** Adds a job with an id after all others. */
  add(
    kind: JobKind,
    nowMs: number,
    onProgress: (entry: JobEntry) => void,
  ): JobEntry {
    this.#lastIdMs = Math.max(this.#lastIdMs + 1, nowMs);
    const id = this.#lastIdMs.toString(36).padStart(ID_LENGTH, "0");
    const entry = new JobEntry({ id, kind }, onProgress);
    this.#entries.set(id, entry);
    return entry;
  }

  /** Adds a job of an earlier process, unless it is in the list already. */
  restore(entry: JobEntry): void {
    if (this.#entries.has(entry.id)) return;
    this.#entries.set(entry.id, entry);
    if (!ID.test(entry.id)) return;
    this.#lastIdMs = Math.max(this.#lastIdMs, Number.parseInt(entry.id, 36));
  }

  drop({ id }: JobEntry): void {
    this.#entries.delete(id);
  }

  get(id: string): JobEntry | undefined {
    return this.#entries.get(id);
  }

  /** Oldest first. */
  get unfinished(): readonly JobEntry[] {
    return this.#newestFirst()
      .filter(({ hasEnded }) => !hasEnded)
      .toReversed();
  }

  /** In the order of their last changes. */
  changedSince(change: number): readonly JobEntry[] {
    return [...this.#entries.values()]
      .filter((entry) => entry.change > change)
      .sort((one, other) => one.change - other.change);
  }

  page(n: number, last: string | undefined): JobPage {
    const listed = this.#newestFirst().filter(
      ({ id }) => last === undefined || id < last,
    );
    const shown = listed.slice(0, n);
    return {
      items: shown.map((entry) => entry.view(MAX_LISTED_ERRORS)),
      next: listed.length > n ? (shown.at(-1)?.id ?? null) : null,
    };
  }

  /**
   * Forgets the oldest ended jobs beyond a hundred, and most errors of older ones.
   *
   * @returns the forgotten jobs, and those that lost errors
   */
  bound(): {
    readonly forgotten: readonly JobEntry[];
    readonly trimmed: readonly JobEntry[];
  } {
    const ended = this.#newestFirst().filter(({ hasEnded }) => hasEnded);
    const forgotten = ended.slice(MAX_ENDED);
    for (const entry of forgotten) this.drop(entry);
    const trimmed = ended
      .slice(WITH_ALL_ERRORS, MAX_ENDED)
      .filter((entry) => entry.trimErrors());
    return { forgotten, trimmed };
  }

  #newestFirst(): JobEntry[] {
    return [...this.#entries.values()].sort((one, other) =>
      one.id < other.id ? 1 : -1,
    );
  }
}
