import { setImmediate as nextTurn } from "node:timers/promises";
import type { Schedule } from "../telemetry/clock.ts";

/** Keys of what was used, each with the time of its last use in epoch milliseconds. */
export type Uses = readonly (readonly [string, number])[];

/** Times are promised to be written within 5 s; the rest of that is for the slices. */
const WRITE_AFTER_MS = 4_000;
/** Leaves turns to other work between two slices. */
const NEXT_SLICE_AFTER_MS = 10;
/** A transaction of this many updates, each with the roots above it, delays requests by a few milliseconds. */
const SLICE_ROWS = 100;
/** Bounds the memory: beyond it the oldest are written immediately. */
const MAX_PENDING = 20_000;

/**
 * Collects uses and writes them in short transactions, so that a hit writes nothing.
 * `write` may throw: times that can't be written are dropped.
 */
export class AccessTimes {
  readonly #write: (uses: Uses) => void;
  readonly #schedule: Schedule;
  readonly #pending = new Map<string, number>();
  #cancel: (() => void) | undefined;

  constructor(write: (uses: Uses) => void, schedule: Schedule) {
    this.#write = write;
    this.#schedule = schedule;
  }

  note(key: string, atMs: number): void {
    const before = this.#pending.get(key);
    if (before === undefined && this.#pending.size >= MAX_PENDING) {
      this.#writeOldest();
    }
    if (before === undefined || before < atMs) this.#pending.set(key, atMs);
    this.#cancel ??= this.#schedule(() => this.#writeSlice(), WRITE_AFTER_MS);
  }

  /** Writes all pending uses and cancels the schedule. */
  flush(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    while (this.#pending.size > 0) this.#writeOldest();
  }

  /** Writes all pending uses, leaving a turn to other work between two slices. */
  async settle(): Promise<void> {
    while (this.#pending.size > 0) {
      this.#writeOldest();
      await nextTurn();
    }
  }

  #writeSlice(): void {
    this.#writeOldest();
    this.#cancel =
      this.#pending.size === 0
        ? undefined
        : this.#schedule(() => this.#writeSlice(), NEXT_SLICE_AFTER_MS);
  }

  #writeOldest(): void {
    const uses: (readonly [string, number])[] = [];
    for (const use of this.#pending) {
      uses.push(use);
      if (uses.length === SLICE_ROWS) break;
    }
    for (const [key] of uses) this.#pending.delete(key);
    try {
      this.#write(uses);
    } catch {
      // A full disk or a locked index: the times are lost, the requests are not.
    }
  }
}
