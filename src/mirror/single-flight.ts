/** Shares running work among concurrent callers. Every caller receives its result or its error. */
export class SingleFlight<T> {
  readonly #running = new Map<string, Promise<T>>();

  /** Returns the running work of that key, or starts it. */
  run(key: string, start: () => Promise<T>): Promise<T> {
    const running = this.#running.get(key);
    if (running !== undefined) return running;
    const work = start().finally(() => this.#running.delete(key));
    this.#running.set(key, work);
    return work;
  }

  has(key: string): boolean {
    return this.#running.has(key);
  }

  /** Resolves when the work that runs now has settled. */
  async drain(): Promise<void> {
    await Promise.allSettled(this.#running.values());
  }
}
