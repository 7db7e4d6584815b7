import { LRUCache } from "lru-cache";
import type { Clock } from "../../telemetry/clock.ts";

/** Sources that are remembered; one that is forgotten begins anew. */
const MAX_SOURCES = 10_000;

interface Bucket {
  left: number;
  atMs: number;
}

/** Counts failures by source, as a bucket that fills up by itself. */
export class FailureLimit {
  readonly #perMinute: number;
  readonly #clock: Clock;
  readonly #buckets = new LRUCache<string, Bucket>({ max: MAX_SOURCES });

  constructor(perMinute: number, clock: Clock) {
    this.#perMinute = perMinute;
    this.#clock = clock;
  }

  /**
   * Takes one chance away; a log-in that succeeds gives it back. It is taken before the password is
   * looked at, so that many at once are no way around.
   *
   * @returns 0, or how long to wait for the next chance
   */
  take(source: string): number {
    const bucket = this.#filled(source);
    if (bucket.left >= 1) {
      bucket.left -= 1;
      return 0;
    }
    return ((1 - bucket.left) * 60_000) / this.#perMinute;
  }

  giveBack(source: string): void {
    const bucket = this.#filled(source);
    bucket.left = Math.min(this.#perMinute, bucket.left + 1);
  }

  #filled(source: string): Bucket {
    const nowMs = this.#clock.monotonicMs();
    let bucket = this.#buckets.get(source);
    if (bucket === undefined) {
      bucket = { left: this.#perMinute, atMs: nowMs };
      this.#buckets.set(source, bucket);
    }
    const came = ((nowMs - bucket.atMs) * this.#perMinute) / 60_000;
    bucket.left = Math.min(this.#perMinute, bucket.left + came);
    bucket.atMs = nowMs;
    return bucket;
  }
}
