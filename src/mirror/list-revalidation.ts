import { type CacheStatus, cacheStatus } from "../telemetry/cache-status.ts";
import { UpstreamError } from "../upstream/errors.ts";
import { judgeUpstreamFailure, staleStatus } from "./answers.ts";
import type { MirroredUpstream } from "./mirrored-upstream.ts";
import type { GateResult, StaleGate } from "./stale-gate.ts";

export interface ListQuestion<T> {
  readonly gate: StaleGate;
  readonly upstream: MirroredUpstream;
  /** Asks the upstream; what it brings is kept for the next. */
  fetch(): Promise<T>;
  /** Others wait for the same fetch. */
  readonly isJoin: boolean;
  /** An older one is known, which is no more to be answered unasked. */
  readonly isKnown: boolean;
  /** What may be answered where the upstream fails. */
  readonly stale: T | undefined;
}

export interface ListAnswer<T> {
  readonly list: T;
  readonly status: CacheStatus;
  readonly isStale: boolean;
}

/**
 * A list from the upstream, or the stale one where the upstream is down, fails or takes too long.
 * Lists have no blobs, so a stale one may be given in any case.
 *
 * @throws whatever `fetch` throws, where there is nothing stale or the upstream has spoken
 */
export async function fetchOrStale<T>(
  question: ListQuestion<T>,
): Promise<ListAnswer<T>> {
  const { gate, upstream, isJoin, isKnown, stale } = question;
  const result = await gate.revalidate(
    upstream,
    () => question.fetch(),
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
  return { list: stale, status: statusOf(result), isStale: true };
}

function statusOf(result: GateResult<unknown>): CacheStatus {
  if (result.kind === "not-asked") return cacheStatus.staleHit();
  return result.kind === "failed" && result.error instanceof UpstreamError
    ? staleStatus(result.error)
    : cacheStatus.staleAfterFailure(undefined);
}

function mayBeStale(upstream: MirroredUpstream, error: unknown): boolean {
  if (!(error instanceof UpstreamError)) return false;
  const { hasCredentials } = upstream.client;
  return (
    judgeUpstreamFailure(error, { wanted: "list", hasCredentials }).stale !==
    "never"
  );
}
