/** Returns a place; a second call does nothing. */
export type Release = () => void;

/** Admits a bounded number of holders; further callers wait in the order of their arrival. */
export class Semaphore {
  readonly #limit: number;
  readonly #waiters = new Set<() => void>();
  #held = 0;

  /** @param limit holders at a time; Infinity: unlimited */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** The number of places that are held. */
  get held(): number {
    return this.#held;
  }

  /** The number of callers that wait. */
  get waiting(): number {
    return this.#waiters.size;
  }

  /** Holds a place for as long as the work takes. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (!this.#tryEnter()) await this.#wait(undefined);
    try {
      return await work();
    } finally {
      this.#leave();
    }
  }

  /** @throws the signal's reason when it aborts before a place is free */
  async acquire(signal: AbortSignal): Promise<Release> {
    signal.throwIfAborted();
    if (!this.#tryEnter()) await this.#wait(signal);
    return runOnce(() => this.#leave());
  }

  #tryEnter(): boolean {
    if (this.#held >= this.#limit) return false;
    this.#held += 1;
    return true;
  }

  #wait(signal: AbortSignal | undefined): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const grant = (): void => {
      signal?.removeEventListener("abort", giveUp);
      resolve();
    };
    const giveUp = (): void => {
      this.#waiters.delete(grant);
      reject(signal?.reason as Error);
    };
    this.#waiters.add(grant);
    signal?.addEventListener("abort", giveUp, { once: true });
    return promise;
  }

  /** Passes the place to the caller that has waited longest. */
  #leave(): void {
    const [next] = this.#waiters;
    if (next === undefined) {
      this.#held -= 1;
    } else {
      this.#waiters.delete(next);
      next();
    }
  }
}

/** Returns a function that runs the work at its first call only. */
export function runOnce(work: () => void): Release {
  let isDone = false;
  return () => {
    if (isDone) return;
    isDone = true;
    work();
  };
}
