import type { MirroredUpstream } from "./mirrored-upstream.ts";

/** How long a request waits for the upstream if a stale answer is allowed, so that it is answered within 3 s. */
const PATIENCE_MS = 2_900;

export type GateResult<T> =
  | { readonly kind: "done"; readonly value: T }
  | { readonly kind: "failed"; readonly error: unknown }
  /** The upstream is known to be down or slow, so the request did not wait for it. */
  | { readonly kind: "not-asked" }
  /** The upstream did not respond within the patience; the work continues in the background. */
  | { readonly kind: "too-slow" };

/**
 * Bounds how long a request waits for an upstream if it has a stale answer. The first request waits
 * for 3 s; until its revalidation has ended, no other request waits for the same upstream.
 */
export class StaleGate {
  /** By upstream: how many revalidations have exceeded the patience and still run. */
  readonly #overdue = new Map<MirroredUpstream, number>();
  readonly #patienceMs: number;

  constructor(options: { patienceMs?: number } = {}) {
    this.#patienceMs = options.patienceMs ?? PATIENCE_MS;
  }

  /** Never rejects. */
  async revalidate<T>(
    upstream: MirroredUpstream,
    start: () => Promise<T>,
    mayBeStale: boolean,
  ): Promise<GateResult<T>> {
    if (mayBeStale && (upstream.client.isDown() || this.isSlow(upstream))) {
      // This request also detects that the upstream is available again.
      this.runInBackground(start());
      return { kind: "not-asked" };
    }
    const work = start().then(
      (value): GateResult<T> => ({ kind: "done", value }),
      (error: unknown): GateResult<T> => ({ kind: "failed", error }),
    );
    if (!mayBeStale) return work;
    const { promise: patience, resolve } =
      Promise.withResolvers<GateResult<T>>();
    const timer = setTimeout(
      () => resolve({ kind: "too-slow" }),
      this.#patienceMs,
    );
    const result = await Promise.race([work, patience]);
    clearTimeout(timer);
    if (result.kind === "too-slow") this.#markOverdue(upstream, work);
    return result;
  }

  /** Runs work in the background. Failures are already reported by the breaker, log and metrics. */
  runInBackground(work: Promise<unknown>): void {
    void work.catch(() => {});
  }

  isSlow(upstream: MirroredUpstream): boolean {
    return this.#overdue.has(upstream);
  }

  #markOverdue(upstream: MirroredUpstream, work: Promise<unknown>): void {
    this.#overdue.set(upstream, (this.#overdue.get(upstream) ?? 0) + 1);
    void work.then(() => {
      const left = (this.#overdue.get(upstream) ?? 1) - 1;
      if (left === 0) this.#overdue.delete(upstream);
      else this.#overdue.set(upstream, left);
    });
  }
}
