import type { CacheOutcome } from "./cache-status.ts";

/** What the counters tell of a request, each of a closed list. */
export interface RequestFacts {
  readonly method: string;
  readonly kind: string;
  /** `2xx` to `5xx`, or `error`. */
  readonly status: string;
  readonly upstream: string | undefined;
  readonly outcome: CacheOutcome | undefined;
  readonly source: string;
}

/** So many requests with the same facts. */
export interface RequestCount extends RequestFacts {
  requests: number;
  sentBytes: number;
}

/**
 * Requests that the counters do not know of yet. A counter finds its series by putting its labels
 * together, three times a request; here that is done when somebody reads them.
 */
export class RequestCounts {
  readonly #counts = new Map<string, RequestCount>();
  #last: RequestCount | undefined;

  add(facts: RequestFacts, sentBytes: number): void {
    const { method, kind, status, upstream, outcome, source } = facts;
    let count = this.#last;
    if (
      count?.method !== method ||
      count.kind !== kind ||
      count.status !== status ||
      count.upstream !== upstream ||
      count.outcome !== outcome ||
      count.source !== source
    ) {
      const key = `${method} ${kind} ${status} ${upstream} ${outcome} ${source}`;
      count = this.#counts.get(key);
      if (count === undefined) {
        count = { ...facts, requests: 0, sentBytes: 0 };
        this.#counts.set(key, count);
      }
      this.#last = count;
    }
    count.requests += 1;
    count.sentBytes += sentBytes;
  }

  /** Gives away what was counted. */
  take(): readonly RequestCount[] {
    const counts = [...this.#counts.values()];
    this.#counts.clear();
    this.#last = undefined;
    return counts;
  }
}
