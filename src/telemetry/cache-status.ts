/** What the mirror did for a request: the closed list used by logs, metrics and `Cache-Status`. */
export type CacheOutcome =
  | "hit"
  | "miss"
  | "joined"
  | "revalidated"
  | "stale"
  | "negative"
  | "passed"
  | "error";

export interface CacheStatus {
  readonly outcome: CacheOutcome;
  /** The value of the `Cache-Status` header. */
  readonly text: string;
}

const status = (outcome: CacheOutcome, parameters: string): CacheStatus => ({
  outcome,
  text: `entrepot; ${parameters}`,
});

const forwarded = (fwd: string, fwdStatus: number | undefined): string =>
  fwdStatus === undefined
    ? `fwd=${fwd}`
    : `fwd=${fwd}; fwd-status=${fwdStatus}`;

/**
 * The values of `Cache-Status`, one function for each outcome.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9211
 */
export const cacheStatus = {
  /** @param ttlMs how long it stays fresh; absent or Infinity: forever, without a `ttl` */
  hit: (ttlMs = Infinity): CacheStatus =>
    ttlMs === Infinity
      ? HIT
      : status("hit", `hit; ttl=${Math.floor(ttlMs / 1000)}`),
  negative: (): CacheStatus => NEGATIVE,
  /** Stale without an upstream request: breaker, offline, or while a revalidation runs. */
  staleHit: (): CacheStatus => STALE_HIT,
  revalidated: (fwdStatus: number): CacheStatus =>
    status(
      "revalidated",
      `${forwarded("stale", fwdStatus)}; detail=revalidated`,
    ),
  /** The tag moved. */
  replaced: (fwdStatus: number): CacheStatus =>
    status("miss", `${forwarded("stale", fwdStatus)}; stored`),
  /** The upstream request failed. */
  staleAfterFailure: (fwdStatus: number | undefined): CacheStatus =>
    status("stale", `${forwarded("stale", fwdStatus)}; detail=stale`),
  stored: (fwdStatus: number | undefined): CacheStatus =>
    status("miss", `${forwarded("miss", fwdStatus)}; stored`),
  notStored: (fwdStatus: number | undefined): CacheStatus =>
    status("passed", forwarded("miss", fwdStatus)),
  /** Forwarded, and the upstream refused or failed. */
  failed: (fwdStatus: number | undefined): CacheStatus =>
    status("error", forwarded("miss", fwdStatus)),
  /** Refused without an upstream request: a breaker, a rest after 429, offline, a rule of the configuration. */
  refused: (): CacheStatus => REFUSED,
  collapsed: (): CacheStatus => COLLAPSED,
  partial: (): CacheStatus => PARTIAL,
} as const;

const HIT = status("hit", "hit");
const NEGATIVE = status("negative", "hit; detail=negative");
/** Counted as a negative hit like a remembered 404, and an error as well. */
const REFUSED = status("error", "hit; detail=negative");
const STALE_HIT = status("stale", "hit; detail=stale");
const COLLAPSED = status("joined", "fwd=miss; collapsed");
const PARTIAL = status("passed", "fwd=partial; fwd-status=206");
