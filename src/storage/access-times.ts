import { setImmediate as nextTurn } from "node:timers/promises";
import type { Schedule } from "../telemetry/clock.ts";

/** What was used, and the epoch milliseconds of the last time. */
export type Uses = readonly (readonly [string, number])[];

/** The promise is 5 s; the rest is for the slices. */
const WRITE_AFTER_MS = 4_000;
/** Between two slices others get their turn. */
const NEXT_SLICE_AFTER_MS = 10;
/** A transaction of so many updates, each with the roots above it, holds up requests for some milliseconds. */
const SLICE_ROWS = 100;
/** Memory has a bound: beyond it the oldest are written at once. */
const MAX_WAITING = 20_000;

/**
 * Uses wait here and are written in short transactions, so that a hit writes nothing.
 * `write` may throw: times that can't be written are dropped.
 */
export class AccessTimes {
  readonly #write: (uses: Uses) => void;
  readonly #schedule: Schedule;
  readonly #waiting = new Map<string, number>();
  #cancel: (() => void) | undefined;

  constructor(write: (uses: Uses) => void, schedule: Schedule) {
    this.#write = write;
    this.#schedule = schedule;
  }

  note(key: string, atMs: number): void {
    const before = this.#waiting.get(key);
    if (before === undefined && this.#waiting.size >= MAX_WAITING) {
      this.#writeOldest();
    }
    if (before === undefined || before < atMs) this.#waiting.set(key, atMs);
    this.#cancel ??= this.#schedule(() => this.#writeSlice(), WRITE_AFTER_MS);
  }

  /** Writes all that waits and schedules nothing more. */
  flush(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    while (this.#waiting.size > 0) this.#writeOldest();
  }

  /** Writes all that waits, with a turn for others between two slices. */
  async settle(): Promise<void> {
    while (this.#waiting.size > 0) {
      this.#writeOldest();
      await nextTurn();
    }
  }

  #writeSlice(): void {
    this.#writeOldest();
    this.#cancel =
      this.#waiting.size === 0
        ? undefined
        : this.#schedule(() => this.#writeSlice(), NEXT_SLICE_AFTER_MS);
  }

  #writeOldest(): void {
    const uses: (readonly [string, number])[] = [];
    for (const use of this.#waiting) {
      uses.push(use);
      if (uses.length === SLICE_ROWS) break;
    }
    for (const [key] of uses) this.#waiting.delete(key);
    try {
      this.#write(uses);
    } catch {
      // A full disk or a locked index: the times are lost, the requests are not.
    }
  }
}
