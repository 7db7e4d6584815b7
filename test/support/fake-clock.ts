import type { Clock } from "../../src/telemetry/clock.ts";

/** A clock that only the test moves. */
export class FakeClock implements Clock {
  #nowMs: number;
  #monotonicMs = 0;

  /** @param nowMs epoch milliseconds; default: the start of 2026 */
  constructor(nowMs: number = Date.UTC(2026, 0, 1)) {
    this.#nowMs = nowMs;
  }

  /** Returns whole milliseconds, as `Date.now()` does; the monotonic clock may have fractions. */
  nowMs(): number {
    return Math.floor(this.#nowMs);
  }

  monotonicMs(): number {
    return this.#monotonicMs;
  }

  /** Moves the wall clock and the monotonic clock. */
  advance(durationMs: number): void {
    if (durationMs < 0)
      throw new RangeError(
        `got ${durationMs} ms; expected a duration of 0 or more`,
      );
    this.#nowMs += durationMs;
    this.#monotonicMs += durationMs;
  }

  /** Sets the wall clock, in either direction, without moving the monotonic clock. */
  setWall(nowMs: number): void {
    this.#nowMs = nowMs;
  }
}
