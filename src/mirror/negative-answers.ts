import { LRUCache } from "lru-cache";
import type { Clock } from "../telemetry/clock.ts";
import { UpstreamError } from "../wire/errors.ts";
import { negativeRefusal, type Wanted } from "./answers.ts";
import type { MirroredUpstream } from "./mirrored-upstream.ts";
import type { RepositoryKey } from "../oci/reference.ts";

/** Random names cost a bounded place in memory and none on disk. */
const MAX_ENTRIES = 10_000;

/** `refused`: to whoever asks without credentials; nothing was learnt of what is there. */
type Negative = "absent" | "refused";

interface Entry {
  readonly negative: Negative;
  readonly untilMs: number;
}

/**
 * What upstreams said is not there, or not for us, for as long as `notFoundTtl` says. Kept in memory
 * only. One for each kind of content: a digest that is no manifest may be a blob.
 */
export class NegativeAnswers {
  readonly #entries = new LRUCache<string, Entry>({ max: MAX_ENTRIES });
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Remembers a failure that the upstream would only repeat. A refusal of credentials is not one:
   * they may be renewed at any moment.
   */
  note(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    reference: string,
    failure: unknown,
  ): void {
    const negative = negativeOf(failure);
    if (negative === undefined) return;
    if (negative === "refused" && upstream.client.hasCredentials) return;
    this.#set(upstream, key, reference, negative);
  }

  noteAbsent(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    reference: string,
  ): void {
    this.#set(upstream, key, reference, "absent");
  }

  /** @throws Refusal where the upstream would not give it */
  assertNone(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    reference: string,
    wanted: Wanted,
  ): void {
    const negative = this.#get(upstream, key, reference);
    if (negative !== undefined) throw negativeRefusal(wanted, negative);
  }

  /** It is remembered as absent, or as refused. */
  has(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    reference: string,
  ): boolean {
    return this.#get(upstream, key, reference) !== undefined;
  }

  isAbsent(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    reference: string,
  ): boolean {
    return this.#get(upstream, key, reference) === "absent";
  }

  /** @throws Refusal where the upstream let nobody have it who comes without credentials */
  assertNotRefused(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    reference: string,
    wanted: Wanted,
  ): void {
    if (this.#get(upstream, key, reference) === "refused") {
      throw negativeRefusal(wanted, "refused");
    }
  }

  delete(key: RepositoryKey, reference: string): void {
    this.#entries.delete(entryKey(key, reference));
  }

  #get(
    { client }: MirroredUpstream,
    key: RepositoryKey,
    reference: string,
  ): Negative | undefined {
    const name = entryKey(key, reference);
    const entry = this.#entries.get(name);
    if (entry === undefined) return undefined;
    if (entry.untilMs <= this.#clock.monotonicMs()) {
      this.#entries.delete(name);
      return undefined;
    }
    // The credentials came with a reload: nobody has asked as them.
    const isOthers = entry.negative === "refused" && client.hasCredentials;
    return isOthers ? undefined : entry.negative;
  }

  #set(
    { freshness }: MirroredUpstream,
    key: RepositoryKey,
    reference: string,
    negative: Negative,
  ): void {
    const ttlMs = freshness.notFoundTtlMs;
    if (ttlMs <= 0) return;
    const untilMs = this.#clock.monotonicMs() + ttlMs;
    this.#entries.set(entryKey(key, reference), { negative, untilMs });
  }
}

function negativeOf(failure: unknown): Negative | undefined {
  if (!(failure instanceof UpstreamError)) return undefined;
  const { kind } = failure;
  if (kind === "not-found") return "absent";
  const isRefusal = kind === "unauthorized" || kind === "denied";
  return isRefusal ? "refused" : undefined;
}

/** No part can hold a space, so two keys never share an entry. */
function entryKey(key: RepositoryKey, reference: string): string {
  return `${key.upstream} ${key.repository} ${reference}`;
}
