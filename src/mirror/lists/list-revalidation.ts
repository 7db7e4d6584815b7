import { type CacheStatus, cacheStatus } from "../../telemetry/cache-status.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { UpstreamError } from "../../wire/errors.ts";
import {
  judgeUpstreamFailure,
  offlineRefusal,
  staleStatus,
} from "../answers.ts";
import type { MirroredUpstream } from "../mirrored-upstream.ts";
import { NegativeAnswers } from "../negative-answers.ts";
import { SingleFlight } from "../single-flight.ts";
import type { StaleGate } from "../stale-gate.ts";
import type { RepositoryKey } from "../../oci/reference.ts";

/** A request for a list that memory does not have, or not fresh. */
export interface ListDemand<T> {
  readonly upstream: MirroredUpstream;
  readonly key: RepositoryKey;
  /** Identifies the list among the negative answers of its kind. */
  readonly reference: string;
  /** Concurrent requests for the same part share one fetch; absent: the whole list. */
  readonly part?: string;
  /** Fetches the list from the upstream, and keeps it for later requests. */
  fetch(): Promise<T>;
  /** Whether an older list is known that is no longer fresh. */
  readonly isKnown: boolean;
  /** The list that may be answered if the upstream fails. */
  readonly stale: T | undefined;
  /** The answer if the upstream had no list a moment ago; absent: an error. */
  readonly absent?: T;
}

export interface ListAnswer<T> {
  readonly list: T;
  readonly status: CacheStatus;
  readonly isStale: boolean;
}

/** Fetches lists of one kind from their upstreams, or answers stale ones if those are down. */
export class ListRevalidation<T> {
  readonly #gate: StaleGate;
  readonly #isOffline: () => boolean;
  readonly #negative: NegativeAnswers;
  readonly #fetches = new SingleFlight<T>();

  constructor(options: {
    readonly gate: StaleGate;
    readonly clock: Clock;
    readonly isOffline: () => boolean;
  }) {
    this.#gate = options.gate;
    this.#isOffline = options.isOffline;
    this.#negative = new NegativeAnswers(options.clock);
  }

  /**
   * Returns the upstream's list, or the stale one if the upstream is down, fails or is too slow. Lists
   * have no blobs, so a stale one is never incomplete.
   *
   * @throws Refusal, or the error of `fetch`, if no stale list exists or the upstream refused it
   */
  async get(demand: ListDemand<T>): Promise<ListAnswer<T>> {
    const { upstream, key, reference, stale, absent } = demand;
    if (this.#isOffline()) {
      if (stale === undefined) throw offlineRefusal("list");
      return { list: stale, status: cacheStatus.staleHit(), isStale: true };
    }
    if (absent === undefined) {
      this.#negative.assertNone(upstream, key, reference, "list");
    } else {
      this.#negative.assertNotRefused(upstream, key, reference, "list");
      if (this.#negative.isAbsent(upstream, key, reference)) {
        return { list: absent, status: cacheStatus.negative(), isStale: false };
      }
    }
    return this.#fetchOrStale(demand);
  }

  /** Remembers in memory only that the upstream has no such list. */
  noteAbsent({
    upstream,
    key,
    reference,
  }: Pick<ListDemand<T>, "upstream" | "key" | "reference">): void {
    this.#negative.noteAbsent(upstream, key, reference);
  }

  /**
   * Fetches the upstream's list, even if a fresh one is known.
   *
   * @throws Refusal, or the error of `fetch`
   */
  async refresh(
    demand: Pick<
      ListDemand<T>,
      "upstream" | "key" | "reference" | "part" | "fetch"
    >,
  ): Promise<void> {
    if (this.#isOffline()) throw offlineRefusal("list");
    this.forget(demand);
    await this.#fetchOrStale({ ...demand, isKnown: true, stale: undefined });
  }

  /** Forgets that the upstream has no such list. */
  forget({ key, reference }: Pick<ListDemand<T>, "key" | "reference">): void {
    this.#negative.delete(key, reference);
  }

  async #fetchOrStale(demand: ListDemand<T>): Promise<ListAnswer<T>> {
    const { upstream, key, reference, part = "", isKnown, stale } = demand;
    const flight = `${key.upstream} ${key.repository} ${reference} ${part}`;
    const isJoin = this.#fetches.has(flight);
    const result = await this.#gate.revalidate(
      upstream,
      () => this.#fetches.run(flight, () => this.#fetch(demand)),
      stale !== undefined,
    );
    if (result.kind === "done") {
      const status = isKnown
        ? cacheStatus.replaced(200)
        : cacheStatus.stored(200);
      return {
        list: result.value,
        status: isJoin ? cacheStatus.collapsed() : status,
        isStale: false,
      };
    }
    const error = result.kind === "failed" ? result.error : undefined;
    if (stale === undefined) throw error;
    if (error !== undefined && !mayBeStale(upstream, error)) throw error;
    return {
      list: stale,
      status:
        result.kind === "not-asked"
          ? cacheStatus.staleHit()
          : error instanceof UpstreamError
            ? staleStatus(error)
            : cacheStatus.staleAfterFailure(undefined),
      isStale: true,
    };
  }

  async #fetch(demand: ListDemand<T>): Promise<T> {
    try {
      return await demand.fetch();
    } catch (error) {
      const { upstream, key, reference } = demand;
      this.#negative.note(upstream, key, reference, error);
      throw error;
    }
  }
}

function mayBeStale(upstream: MirroredUpstream, error: unknown): boolean {
  if (!(error instanceof UpstreamError)) return false;
  const { hasCredentials } = upstream.client;
  return (
    judgeUpstreamFailure(error, { wanted: "list", hasCredentials }).stale !==
    "never"
  );
}
