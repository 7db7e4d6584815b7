import type { Clock } from "../../src/telemetry/clock.ts";

/** A clock that stands until a test moves it. */
export class FakeClock implements Clock {
  #nowMs: number;
  #monotonicMs = 0;

  /** @param nowMs epoch milliseconds; the second that 2026 began in, where absent */
  constructor(nowMs: number = Date.UTC(2026, 0, 1)) {
    this.#nowMs = nowMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  monotonicMs(): number {
    return this.#monotonicMs;
  }

  /** Time passes: both clocks move. */
  advance(durationMs: number): void {
    if (durationMs < 0) throw new RangeError("time does not pass backwards");
    this.#nowMs += durationMs;
    this.#monotonicMs += durationMs;
  }

  /** Somebody sets the wall clock, in either direction; no time passes. */
  setWall(nowMs: number): void {
    this.#nowMs = nowMs;
  }
}
