/**
 * A point at which code waits until the test releases it, and of which the test learns that the code
 * has reached it: order without sleeping.
 */
export class Barrier {
  #arrivals = 0;
  #isReleased = false;
  readonly #held = new Set<() => void>();
  readonly #counter = new Counter();

  /** Number of arrivals so far. */
  get arrivals(): number {
    return this.#arrivals;
  }

  /** Waits for the release; resolves immediately after it. `signal` ends this wait. */
  async pass(signal?: AbortSignal): Promise<void> {
    this.#arrivals += 1;
    this.#counter.notify();
    if (this.#isReleased || signal?.aborted === true) return;
    await new Promise<void>((resolve) => {
      const go = (): void => {
        signal?.removeEventListener("abort", go);
        this.#held.delete(go);
        resolve();
      };
      signal?.addEventListener("abort", go, { once: true });
      this.#held.add(go);
    });
  }

  /** Resolves after `count` arrivals. */
  arrived(count = 1, timeoutMs?: number): Promise<void> {
    return this.#counter.until(
      () => this.#arrivals >= count,
      () => `${this.#arrivals} of ${count} came to the barrier`,
      timeoutMs,
    );
  }

  /** Releases all waiters, present and future. */
  release(): void {
    this.#isReleased = true;
    for (const go of this.#held) go();
  }
}

/** Waits for a condition that is checked at each notification. */
export class Counter {
  readonly #checks = new Set<() => void>();

  notify(): void {
    for (const check of this.#checks) check();
  }

  /** @param describe returns the state reached, for the error of a time-out */
  until(
    isReached: () => boolean,
    describe: () => string,
    timeoutMs = 30_000,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      if (isReached()) {
        resolve();
        return;
      }
      const timer = setTimeout(() => {
        this.#checks.delete(check);
        reject(new Error(`after ${timeoutMs} ms: ${describe()}`));
      }, timeoutMs);
      const check = (): void => {
        if (!isReached()) return;
        clearTimeout(timer);
        this.#checks.delete(check);
        resolve();
      };
      this.#checks.add(check);
    });
  }
}
