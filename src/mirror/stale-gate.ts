import type { MirroredUpstream } from "./mirrored-upstream.ts";

/** What the upstream gets where a stale answer may be given: the answer is out within 3 s. */
const PATIENCE_MS = 2_900;

export type GateResult<T> =
  | { readonly kind: "done"; readonly value: T }
  | { readonly kind: "failed"; readonly error: unknown }
  /** The upstream is known to be down or slow: nobody waited. */
  | { readonly kind: "not-asked" }
  /** The upstream had its 3 s; the work goes on behind. */
  | { readonly kind: "too-slow" };

/**
 * How long a request waits for an upstream when it has something stale to give. The first one
 * waits its 3 s; until that revalidation has ended nobody else waits for the same upstream.
 */
export class StaleGate {
  /** Revalidations of an upstream that are over their time. */
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
      // It is also the probe that finds the upstream back.
      this.runBehind(start());
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

  /** Lets work go on whose answer nobody waits for; its failure is known to breaker, log and metrics. */
  runBehind(work: Promise<unknown>): void {
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
