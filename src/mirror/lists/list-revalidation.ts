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

/** One list that is no longer, or not yet, to be answered from memory. */
export interface ListQuestion<T> {
  readonly upstream: MirroredUpstream;
  readonly key: RepositoryKey;
  /** Stands for the list among the negative answers of its kind. */
  readonly reference: string;
  /** Those who ask for the same part share one fetch; absent: the whole is asked for. */
  readonly part?: string;
  /** Asks the upstream; what it brings is kept for the next. */
  fetch(): Promise<T>;
  /** An older one is known, which is no more to be answered unasked. */
  readonly isKnown: boolean;
  /** What may be answered where the upstream fails. */
  readonly stale: T | undefined;
  /** What is answered where the upstream had none a moment ago; absent: that there is none. */
  readonly absent?: T;
}

export interface ListAnswer<T> {
  readonly list: T;
  readonly status: CacheStatus;
  readonly isStale: boolean;
}

/** Lists of one kind, as their upstreams have them, or stale where those are down. */
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
   * The upstream's list, or the stale one where the upstream is down, fails or takes too long.
   * Lists have no blobs, so a stale one may be given in any case.
   *
   * @throws Refusal, and whatever `fetch` throws, where there is nothing stale or the upstream has spoken
   */
  async ask(question: ListQuestion<T>): Promise<ListAnswer<T>> {
    const { upstream, key, reference, stale, absent } = question;
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
    return this.#fetchOrStale(question);
  }

  /** The upstream has none, which is not worth a row. */
  noteAbsent({
    upstream,
    key,
    reference,
  }: Pick<ListQuestion<T>, "upstream" | "key" | "reference">): void {
    this.#negative.noteAbsent(upstream, key, reference);
  }

  /**
   * The upstream's list as it is now, whatever is remembered of it.
   *
   * @throws Refusal, and whatever `fetch` throws
   */
  async renew(
    question: Pick<
      ListQuestion<T>,
      "upstream" | "key" | "reference" | "part" | "fetch"
    >,
  ): Promise<void> {
    if (this.#isOffline()) throw offlineRefusal("list");
    this.forget(question);
    await this.#fetchOrStale({ ...question, isKnown: true, stale: undefined });
  }

  /** Forgets that the upstream has none. */
  forget({ key, reference }: Pick<ListQuestion<T>, "key" | "reference">): void {
    this.#negative.delete(key, reference);
  }

  async #fetchOrStale(question: ListQuestion<T>): Promise<ListAnswer<T>> {
    const { upstream, key, reference, part = "", isKnown, stale } = question;
    const flight = `${key.upstream} ${key.repository} ${reference} ${part}`;
    const isJoin = this.#fetches.has(flight);
    const result = await this.#gate.revalidate(
      upstream,
      () => this.#fetches.run(flight, () => this.#fetch(question)),
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

  async #fetch(question: ListQuestion<T>): Promise<T> {
    try {
      return await question.fetch();
    } catch (error) {
      const { upstream, key, reference } = question;
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
