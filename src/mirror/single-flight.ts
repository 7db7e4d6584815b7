/**
 * Work that is shared by all who ask for it while it runs. The result reaches every waiter, and
 * so does the error.
 */
export class SingleFlight<T> {
  readonly #running = new Map<string, Promise<T>>();

  /** @returns the running work of that key, or that of `start` */
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

  /** All that runs now, settled. */
  async drain(): Promise<void> {
    await Promise.allSettled(this.#running.values());
  }
}
