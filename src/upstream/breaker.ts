import type { Clock } from "../telemetry/clock.ts";

const FIRST_PAUSE_MS = 5_000;
const MAX_PAUSE_MS = 300_000;
/** Repeated failures of one resource say nothing about the others. */
const MAX_FAILED_RESOURCES = 3;

/** `half-open`: a probe is running. */
export type BreakerState = "closed" | "open" | "half-open";

/** One failure, for {@link BreakerPermit.fail}. */
export interface BreakerFailure {
  /** `severe`: refused, no such host, no connection in time. `mild`: any other failure. */
  readonly severity: "severe" | "mild";
  /** The requested blob, list or manifest; absent: counts as a resource of its own. */
  readonly resource?: string;
  /** The pause that the other side requested. */
  readonly retryAfterMs?: number | undefined;
}

/** Allows one request, whose result must be reported; only the first report counts. */
export interface BreakerPermit {
  /** True: the result of this request decides whether the open breaker closes. */
  readonly isProbe: boolean;
  succeed(): void;
  fail(failure: BreakerFailure): void;
  /** The other side requested a pause. */
  rest(durationMs: number): void;
  /** Reports no result: the mirror ended the request, or it failed elsewhere. */
  abandon(): void;
}

/**
 * Keeps requests away from a server that does not answer. A severe failure opens the breaker
 * immediately; mild failures open it after three different resources failed in a row. After 5 s,
 * doubling to 5 min, one probe at a time may close it again.
 */
export class Breaker {
  readonly #clock: Clock;
  readonly #onChange: (isUp: boolean) => void;
  /** Resources that failed since the last success; at most {@link MAX_FAILED_RESOURCES}. */
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

  /** True until a probe succeeds, also while one is due or running. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  get state(): BreakerState {
    if (!this.#isOpen) return "closed";
    return this.#probe === undefined ? "open" : "half-open";
  }

  /** Time until the next probe is allowed; 0 if one is allowed now. */
  get retryAfterMs(): number {
    return this.#isOpen
      ? Math.max(0, this.#untilMs - this.#clock.monotonicMs())
      : 0;
  }

  /** True if {@link enter} would return a permit now. */
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
    // The success of an earlier request does not cancel a later Retry-After.
    if (this.#isResting && !isProbe) return;
    this.#failed.clear();
    this.#pauseMs = FIRST_PAUSE_MS;
    this.#isResting = false;
    this.#setOpen(false);
  }

  #noteFailure(failure: BreakerFailure, isProbe: boolean): void {
    const { severity, resource, retryAfterMs = 0 } = failure;
    if (this.#isOpen) {
      // Requests that ran when the breaker opened add no information.
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
