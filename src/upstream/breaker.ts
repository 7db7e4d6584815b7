import type { Clock } from "../telemetry/clock.ts";

const FIRST_PAUSE_MS = 5_000;
const MAX_PAUSE_MS = 300_000;
/** One resource that fails again and again says nothing of the others. */
const MAX_FAILED_RESOURCES = 3;

/** `half-open`: a probe is on its way. */
export type BreakerState = "closed" | "open" | "half-open";

/** One failure, for {@link BreakerPermit.fail}. */
export interface BreakerFailure {
  /** `severe`: refused, no such host, no connection in time. `mild`: anything else. */
  readonly severity: "severe" | "mild";
  /** The blob, list or manifest that was asked for; absent: one that no other request names. */
  readonly resource?: string;
  /** How long the other side asked to be left alone. */
  readonly retryAfterMs?: number | undefined;
}

/** The right to ask once, and the duty to report how it went; only the first report counts. */
export interface BreakerPermit {
  /** The one request that finds out whether an open breaker may close. */
  readonly isProbe: boolean;
  succeed(): void;
  fail(failure: BreakerFailure): void;
  /** The other side asked to be left alone for so long. */
  rest(durationMs: number): void;
  /** Nothing was learnt: ended by ourselves, or failed elsewhere. */
  abandon(): void;
}

/**
 * Keeps requests away from a place that does not answer. A severe failure opens it immediately, mild
 * ones after three different resources failed in a row; after 5 s, doubling to 5 min, one probe at a
 * time may close it again.
 */
export class Breaker {
  readonly #clock: Clock;
  readonly #onChange: (isUp: boolean) => void;
  /** Since the last success; at most {@link MAX_FAILED_RESOURCES}. */
  readonly #failed = new Set<string | symbol>();
  #isOpen = false;
  #isResting = false;
  #untilMs = 0;
  #pauseMs = FIRST_PAUSE_MS;
  #probe: BreakerPermit | undefined;

  constructor(clock: Clock, onChange: (isUp: boolean) => void = () => {}) {
    this.#clock = clock;
    this.#onChange = onChange;
  }

  /** True until a probe has succeeded, also while one is due or on its way. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  get state(): BreakerState {
    if (!this.#isOpen) return "closed";
    return this.#probe === undefined ? "open" : "half-open";
  }

  /** Until the next probe may go; 0 when one may go now. */
  get retryAfterMs(): number {
    return this.#isOpen
      ? Math.max(0, this.#untilMs - this.#clock.monotonicMs())
      : 0;
  }

  /** Whether {@link enter} would give a permit now. */
  get isPassable(): boolean {
    return (
      !this.#isOpen || (this.#probe === undefined && this.retryAfterMs === 0)
    );
  }

  enter(): BreakerPermit | undefined {
    if (!this.isPassable) return undefined;
    let isUsed = false;
    const use = (act: () => void): void => {
      if (isUsed) return;
      isUsed = true;
      if (this.#probe === permit) this.#probe = undefined;
      act();
    };
    const permit: BreakerPermit = {
      isProbe: this.#isOpen,
      succeed: () => use(() => this.#succeeded(permit.isProbe)),
      fail: (failure) => use(() => this.#noteFailure(failure, permit.isProbe)),
      rest: (durationMs) => use(() => this.#rest(durationMs)),
      abandon: () => use(() => {}),
    };
    if (this.#isOpen) this.#probe = permit;
    return permit;
  }

  #succeeded(isProbe: boolean): void {
    // A request that was on its way when a Retry-After came does not outweigh it.
    if (this.#isResting && !isProbe) return;
    this.#failed.clear();
    this.#pauseMs = FIRST_PAUSE_MS;
    this.#isResting = false;
    this.#setOpen(false);
  }

  #noteFailure(failure: BreakerFailure, isProbe: boolean): void {
    const { severity, resource, retryAfterMs = 0 } = failure;
    if (this.#isOpen) {
      // Those that failed together with the one that opened it prove nothing new.
      if (!isProbe) return;
      this.#pauseMs = Math.min(this.#pauseMs * 2, MAX_PAUSE_MS);
    } else {
      this.#failed.add(resource ?? Symbol());
      if (severity === "mild" && this.#failed.size < MAX_FAILED_RESOURCES) {
        return;
      }
      this.#pauseMs = FIRST_PAUSE_MS;
    }
    this.#failed.clear();
    this.#isResting = false;
    this.#untilMs =
      this.#clock.monotonicMs() + Math.max(this.#pauseMs, retryAfterMs);
    this.#setOpen(true);
  }

  #rest(durationMs: number): void {
    const untilMs = this.#clock.monotonicMs() + durationMs;
    this.#untilMs = this.#isOpen ? Math.max(this.#untilMs, untilMs) : untilMs;
    this.#isResting = true;
    this.#setOpen(true);
  }

  #setOpen(isOpen: boolean): void {
    if (this.#isOpen === isOpen) return;
    this.#isOpen = isOpen;
    this.#onChange(!isOpen);
  }
}
