import { UpstreamError } from "./errors.ts";
import { type Release, Semaphore } from "./semaphore.ts";

/** Requests in a longer queue would be answered long after their clients have left. */
const MAX_WAITING = 1_000;

/**
 * The requests that may run at a time against one upstream. undici does not bound its queue, and its
 * time-outs run while a request is queued; therefore requests are counted here, before undici.
 */
export class Slots {
  readonly #upstream: string;
  readonly #maxWaiting: number;
  readonly #semaphore: Semaphore;

  /** @param count 0: unlimited */
  constructor(count: number, upstream: string, maxWaiting = MAX_WAITING) {
    this.#semaphore = new Semaphore(count === 0 ? Infinity : count);
    this.#upstream = upstream;
    this.#maxWaiting = maxWaiting;
  }

  /** True if no slot is held. */
  get isIdle(): boolean {
    return this.#semaphore.held === 0;
  }

  /** The number of requests that wait. */
  get waiting(): number {
    return this.#semaphore.waiting;
  }

  /** @throws UpstreamError `overloaded` if the queue is full, `timeout` if the signal aborts */
  async acquire(signal: AbortSignal): Promise<Release> {
    if (this.waiting >= this.#maxWaiting && !signal.aborted) {
      throw new UpstreamError("overloaded", "too many requests wait", {
        upstream: this.#upstream,
        isLocal: true,
        retryAfterMs: 1_000,
      });
    }
    try {
      return await this.#semaphore.acquire(signal);
    } catch (cause) {
      throw new UpstreamError("timeout", "gave up waiting for a slot", {
        upstream: this.#upstream,
        cause,
      });
    }
  }
}
