import { UpstreamError } from "./errors.ts";

/** A longer queue would only be answered long after everybody has gone. */
const MAX_WAITING = 1_000;

/**
 * So many at a time, the others wait in the order they came. undici has no bound on its queue and
 * its time-outs run in it, so connections are counted here.
 */
export class Slots {
  readonly #upstream: string;
  readonly #maxWaiting: number;
  readonly #waiting = new Set<() => void>();
  readonly #count: number;
  #held = 0;

  /** @param count 0: unlimited */
  constructor(count: number, upstream: string, maxWaiting = MAX_WAITING) {
    this.#count = count === 0 ? Infinity : count;
    this.#upstream = upstream;
    this.#maxWaiting = maxWaiting;
  }

  /** None is held. */
  get isIdle(): boolean {
    return this.#held === 0;
  }

  /** How many wait. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /**
   * @returns the slot's end; calling it again does nothing
   * @throws UpstreamError `overloaded` when the queue is full, `timeout` when the signal aborts
   */
  async acquire(signal: AbortSignal): Promise<() => void> {
    if (signal.aborted) throw this.#aborted(signal);
    if (this.#held < this.#count) {
      this.#held += 1;
      return this.#once();
    }
    if (this.#waiting.size >= this.#maxWaiting) {
      throw new UpstreamError("overloaded", "too many requests wait", {
        upstream: this.#upstream,
        isLocal: true,
        retryAfterMs: 1_000,
      });
    }
    const { promise, resolve, reject } = Promise.withResolvers<() => void>();
    const grant = (): void => {
      signal.removeEventListener("abort", leave);
      resolve(this.#once());
    };
    const leave = (): void => {
      this.#waiting.delete(grant);
      reject(this.#aborted(signal));
    };
    this.#waiting.add(grant);
    signal.addEventListener("abort", leave, { once: true });
    return promise;
  }

  #once(): () => void {
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      const [next] = this.#waiting;
      if (next === undefined) {
        this.#held -= 1;
      } else {
        this.#waiting.delete(next);
        next();
      }
    };
  }

  #aborted(signal: AbortSignal): UpstreamError {
    return new UpstreamError("timeout", "given up while waiting for a slot", {
      upstream: this.#upstream,
      cause: signal.reason,
    });
  }
}
