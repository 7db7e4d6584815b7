import { LRUCache } from "lru-cache";
import type { Clock } from "../telemetry/clock.ts";
import { UpstreamError } from "../wire/errors.ts";
import { negativeRefusal, type Wanted } from "./answers.ts";
import type { MirroredUpstream } from "./mirrored-upstream.ts";
import type { RepositoryKey } from "../oci/reference.ts";

/** Random names cost a bounded place in memory and none on disk. */
const MAX_ENTRIES = 10_000;

/** `refused`: a request without credentials was refused, which does not show whether the content exists. */
type Negative = "absent" | "refused";

interface Entry {
  readonly negative: Negative;
  readonly untilMs: number;
}

/**
 * Remembers in memory for `notFoundTtl` what upstreams reported as absent or refused. Each kind of
 * content has its own instance: a digest that is not a manifest may be a blob.
 */
export class NegativeAnswers {
  readonly #entries = new LRUCache<string, Entry>({ max: MAX_ENTRIES });
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Remembers a failure that the upstream would repeat. A refusal of credentials is not remembered:
   * they may be renewed at any time.
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

  /** @throws Refusal if the content is remembered as absent or refused */
  assertNone(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    reference: string,
    wanted: Wanted,
  ): void {
    const negative = this.#get(upstream, key, reference);
    if (negative !== undefined) throw negativeRefusal(wanted, negative);
  }

  /** Whether the content is remembered as absent or refused. */
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

  /** @throws Refusal if the upstream refused a request without credentials */
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
    // A reload added the credentials: no request has used them yet.
    const isOutdated = entry.negative === "refused" && client.hasCredentials;
    return isOutdated ? undefined : entry.negative;
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

/** No part can contain a space, so two keys never share an entry. */
function entryKey(key: RepositoryKey, reference: string): string {
  return `${key.upstream} ${key.repository} ${reference}`;
}
