import { LRUCache } from "lru-cache";
import type { RepositoryKey, Tag } from "../../oci/reference.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { CredentialError } from "../../upstream/credentials/login.ts";
import { UpstreamError } from "../../wire/errors.ts";
import { flightOf } from "./manifest-answers.ts";
import type { MirroredUpstream } from "../mirrored-upstream.ts";

/** If a tag is evicted from this memory, one more GET is sent. */
const MAX_TAGS = 10_000;

/** Statuses that some registries and proxies return for a HEAD although a GET succeeds. */
const DOUBTFUL: ReadonlySet<number> = new Set([400, 401, 403, 404, 406]);

/** The outcome of the GET that followed a failed HEAD. */
export type GetAfterHead =
  | { readonly kind: "worked" }
  | { readonly kind: "failed"; readonly error: unknown }
  /** It was sent longer ago than `notFoundTtl`. */
  | { readonly kind: "expired" };

/**
 * Remembers tags whose HEAD failed and was followed by a GET. Such a GET is sent once per tag and
 * `notFoundTtl`, because it counts as a pull.
 */
export class FailedHeads {
  readonly #clock: Clock;
  readonly #tags = new LRUCache<
    string,
    { readonly result: GetAfterHead; readonly untilMs: number }
  >({ max: MAX_TAGS });

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Returns undefined if no GET is known to have followed a HEAD. */
  get(key: RepositoryKey, tag: Tag): GetAfterHead | undefined {
    const entry = this.#tags.get(flightOf(key, tag));
    if (entry === undefined) return undefined;
    const isCurrent = this.#clock.monotonicMs() < entry.untilMs;
    return isCurrent ? entry.result : { kind: "expired" };
  }

  note(
    { freshness }: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
    result: GetAfterHead,
  ): void {
    const untilMs = this.#clock.monotonicMs() + freshness.notFoundTtlMs;
    this.#tags.set(flightOf(key, tag), { result, untilMs });
  }
}

/** Whether a GET may succeed although a HEAD failed like this. */
export function isHeadDoubtful(error: unknown): boolean {
  if (!(error instanceof UpstreamError) || error instanceof CredentialError) {
    return false;
  }
  const { status = 0, isLocal } = error;
  return !isLocal && (DOUBTFUL.has(status) || status >= 500);
}

/** Whether HEADs of this tag only are suspended, because they failed before. */
export function isResting(
  { client }: MirroredUpstream,
  error: unknown,
): boolean {
  return (
    error instanceof UpstreamError &&
    error.kind === "breaker-open" &&
    error.isLocal &&
    !client.isDown()
  );
}
