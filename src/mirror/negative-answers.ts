import { LRUCache } from "lru-cache";
import type { RepositoryKey } from "../cache/metadata-index.ts";
import type { Clock } from "../telemetry/clock.ts";

/** Random names cost a bounded place in memory and none on disk. */
const MAX_ENTRIES = 10_000;

/**
 * What upstreams said is not there, for as long as `notFoundTtl` says. Kept in memory only. One for
 * each kind of content: a digest that is no manifest may be a blob.
 */
export class NegativeAnswers {
  readonly #untilMs = new LRUCache<string, number>({ max: MAX_ENTRIES });
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(key: RepositoryKey, reference: string, ttlMs: number): void {
    if (ttlMs > 0) {
      this.#untilMs.set(
        entryKey(key, reference),
        this.#clock.monotonicMs() + ttlMs,
      );
    }
  }

  has(key: RepositoryKey, reference: string): boolean {
    const entry = entryKey(key, reference);
    const untilMs = this.#untilMs.get(entry);
    if (untilMs === undefined) return false;
    if (untilMs > this.#clock.monotonicMs()) return true;
    this.#untilMs.delete(entry);
    return false;
  }

  delete(key: RepositoryKey, reference: string): void {
    this.#untilMs.delete(entryKey(key, reference));
  }
}

/** No part can hold a space, so two keys never share an entry. */
function entryKey(key: RepositoryKey, reference: string): string {
  return `${key.upstream} ${key.repository} ${reference}`;
}
