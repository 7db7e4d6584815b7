interface Queue<T> {
  readonly items: T[];
  /** The place of the next item. The items are not shifted: that moves all of a long queue each time. */
  next: number;
  running: number;
}

/**
 * Runs work of many upstreams, for each of them a few items concurrently, so that a slow or failed
 * upstream delays only its own items.
 */
export class UpstreamQueues<T> {
  readonly #atOnce: number;
  readonly #run: (item: T) => Promise<void>;
  readonly #queues = new Map<string, Queue<T>>();
  readonly #ended: PromiseWithResolvers<void> = Promise.withResolvers();
  #running = 0;
  #isClosed = false;
  #hasFailed = false;
  #failure: unknown;

  /**
   * @param atOnce items of one upstream that run concurrently
   * @param run a rejection ends everything: no further item starts
   */
  constructor(atOnce: number, run: (item: T) => Promise<void>) {
    this.#atOnce = atOnce;
    this.#run = run;
  }

  /** Adds an item; running items may add others. */
  add(upstream: string, item: T): void {
    const queue = this.#queues.get(upstream) ?? {
      items: [],
      next: 0,
      running: 0,
    };
    this.#queues.set(upstream, queue);
    queue.items.push(item);
    this.#fill(queue);
  }

  /** Resolves when every item has ended. @throws the first rejection, once the running items have ended */
  async drain(): Promise<void> {
    this.#isClosed = true;
    this.#endIfIdle();
    await this.#ended.promise;
    if (this.#hasFailed) throw this.#failure;
  }

  #fill(queue: Queue<T>): void {
    while (!this.#hasFailed && queue.running < this.#atOnce) {
      const item = queue.items[queue.next];
      if (item === undefined) return;
      queue.next += 1;
      queue.running += 1;
      this.#running += 1;
      void this.#run(item)
        .catch((error: unknown) => {
          if (!this.#hasFailed) this.#failure = error;
          this.#hasFailed = true;
        })
        .then(() => {
          queue.running -= 1;
          this.#running -= 1;
          this.#fill(queue);
          this.#endIfIdle();
        });
    }
  }

  #endIfIdle(): void {
    if (this.#isClosed && this.#running === 0) this.#ended.resolve();
  }
}
