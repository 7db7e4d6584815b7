import type { Clock } from "../telemetry/clock.ts";

/** Smaller steps are corrections that change no decision about hours or days. */
const MIN_STEP_MS = 60_000;

/**
 * Notices forward steps of the wall clock, by comparison with the monotonic clock: a clock that is
 * set wrong makes everything look old. Each step counts as recent for a time.
 */
export class ClockSteps {
  readonly #clock: Clock;
  readonly #recentMs: number;
  #offsetMs: number;
  #steppedAtMs: number | undefined;

  /** @param recentMs monotonic milliseconds */
  constructor(clock: Clock, recentMs: number) {
    this.#clock = clock;
    this.#recentMs = recentMs;
    this.#offsetMs = clock.nowMs() - clock.monotonicMs();
  }

  /** Returns whether the clock was set forward recently. Called at least once a minute. */
  isRecent(): boolean {
    const monotonicMs = this.#clock.monotonicMs();
    const offsetMs = this.#clock.nowMs() - monotonicMs;
    if (offsetMs - this.#offsetMs > MIN_STEP_MS)
      this.#steppedAtMs = monotonicMs;
    this.#offsetMs = offsetMs;
    return (
      this.#steppedAtMs !== undefined &&
      monotonicMs - this.#steppedAtMs < this.#recentMs
    );
  }
}
