/**
 * Where something waits until a test lets it go, and a test waits until it has come there:
 * order without sleeping.
 */
export class Barrier {
  #arrivals = 0;
  #isReleased = false;
  readonly #held = new Set<() => void>();
  readonly #counter = new Counter();

  /** How many have come here so far. */
  get arrivals(): number {
    return this.#arrivals;
  }

  /** Waits here, or passes when the barrier was released before. `signal` lets this one go. */
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

  /** Ends when `count` have come. */
  arrived(count = 1, timeoutMs?: number): Promise<void> {
    return this.#counter.until(
      () => this.#arrivals >= count,
      () => `${this.#arrivals} of ${count} came to the barrier`,
      timeoutMs,
    );
  }

  /** Lets all go, those who come later too. */
  release(): void {
    this.#isReleased = true;
    for (const go of this.#held) go();
  }
}

/** Waits for a condition that changes only when somebody notifies. */
export class Counter {
  readonly #checks = new Set<() => void>();

  notify(): void {
    for (const check of this.#checks) check();
  }

  /** @param describe what had been reached, for the error when the time is over */
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
