import { LRUCache } from "lru-cache";
import type { Clock } from "../../telemetry/clock.ts";

/** Sources that are remembered; a forgotten source has a full bucket again. */
const MAX_SOURCES = 10_000;

interface Bucket {
  left: number;
  atMs: number;
}

/** Counts failures by source, as a token bucket. */
export class FailureLimit {
  readonly #perMinute: number;
  readonly #clock: Clock;
  readonly #buckets = new LRUCache<string, Bucket>({ max: MAX_SOURCES });

  constructor(perMinute: number, clock: Clock) {
    this.#perMinute = perMinute;
    this.#clock = clock;
  }

  /**
   * Takes one token; a successful log-in returns it. The token is taken before the password is
   * checked, so that concurrent log-ins cannot exceed the limit.
   *
   * @returns 0, or the time until the next token
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
    const refilled = ((nowMs - bucket.atMs) * this.#perMinute) / 60_000;
    bucket.left = Math.min(this.#perMinute, bucket.left + refilled);
    bucket.atMs = nowMs;
    return bucket;
  }
}
