import type { FreshnessConfig } from "../config/config.ts";
import { compilePattern } from "../oci/glob.ts";
import {
  isReferrersTag,
  type RepositoryName,
  type Tag,
} from "../oci/reference.ts";

/** How an upstream's tags age. */
export interface FreshnessPolicy {
  readonly tagTtlMs: number;
  readonly staleIfGoneMs: number;
  readonly staleIfErrorMs: number;
  readonly staleWhileRevalidateMs: number;
  readonly notFoundTtlMs: number;
  /**
   * The life of a tag: the first rule that matches it, else {@link tagTtlMs}; of a tag that holds
   * referrers or signatures no longer than {@link notFoundTtlMs}, for a second signature moves it.
   */
  ttlMs(repository: RepositoryName, tag: Tag): number;
}

export function createFreshnessPolicy(
  config: FreshnessConfig,
): FreshnessPolicy {
  const rules = config.rules.map((rule) => ({
    matches: compilePattern(rule.match),
    ttlMs: rule.ttlMs,
  }));
  return {
    tagTtlMs: config.tagTtlMs,
    staleIfGoneMs: config.staleIfGoneMs,
    staleIfErrorMs: config.staleIfErrorMs,
    staleWhileRevalidateMs: config.staleWhileRevalidateMs,
    notFoundTtlMs: config.notFoundTtlMs,
    ttlMs: (repository, tag) => {
      const ttlMs =
        rules.find((rule) => rule.matches(repository, tag))?.ttlMs ??
        config.tagTtlMs;
      return isReferrersTag(tag)
        ? Math.min(ttlMs, config.notFoundTtlMs)
        : ttlMs;
    },
  };
}

export type Freshness =
  | { readonly state: "fresh"; readonly ttlMs: number }
  | {
      readonly state: "stale";
      /** May be answered while it is revalidated behind. */
      readonly whileRevalidating: boolean;
      /** May be answered when the upstream fails. */
      readonly ifError: boolean;
    };

/**
 * Whether something verified then may be answered now; pure. A time in the future means that the
 * clock was set back: it proves nothing, so it is stale.
 */
export function judgeFreshness(
  verifiedAtMs: number,
  nowMs: number,
  ttlMs: number,
  policy: Pick<FreshnessPolicy, "staleIfErrorMs" | "staleWhileRevalidateMs">,
): Freshness {
  const ageMs = nowMs - verifiedAtMs;
  if (ageMs >= 0 && ageMs < ttlMs) {
    return { state: "fresh", ttlMs: ttlMs - ageMs };
  }
  return {
    state: "stale",
    whileRevalidating:
      ageMs >= 0 && ageMs - ttlMs < policy.staleWhileRevalidateMs,
    ifError: ageMs <= policy.staleIfErrorMs,
  };
}
