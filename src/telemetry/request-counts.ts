import type { CacheOutcome } from "./cache-status.ts";

/** The labels of a counted request, each from a closed list. */
export interface RequestFacts {
  readonly method: string;
  readonly kind: string;
  /** `2xx` to `5xx`, or `error`. */
  readonly status: string;
  readonly upstream: string | undefined;
  /** The hosted registry; absent or undefined: the request was not for hosted content. */
  readonly hosted?: string | undefined;
  readonly outcome: CacheOutcome | undefined;
  readonly source: string;
}

/** The number of requests with the same labels. */
export interface RequestCount extends RequestFacts {
  requests: number;
  sentBytes: number;
}

/**
 * Requests that are not yet added to the counters. A counter looks up its series by joining its
 * labels, three times a request; here that happens only when the metrics are read.
 */
export class RequestCounts {
  readonly #counts = new Map<string, RequestCount>();
  #last: RequestCount | undefined;

  add(facts: RequestFacts, sentBytes: number): void {
    const { method, kind, status, upstream, hosted, outcome, source } = facts;
    let count = this.#last;
    if (
      count?.method !== method ||
      count.kind !== kind ||
      count.status !== status ||
      count.upstream !== upstream ||
      count.hosted !== hosted ||
      count.outcome !== outcome ||
      count.source !== source
    ) {
      const key = `${method} ${kind} ${status} ${upstream} ${hosted} ${outcome} ${source}`;
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

  /** Returns the counts and resets them. */
  take(): readonly RequestCount[] {
    const counts = [...this.#counts.values()];
    this.#counts.clear();
    this.#last = undefined;
    return counts;
  }
}
