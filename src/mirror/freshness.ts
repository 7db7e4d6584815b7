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
   * Returns how long a tag is fresh: as the first matching rule says, else {@link tagTtlMs}. A tag
   * that holds referrers or signatures is fresh for {@link notFoundTtlMs} at most, because a second
   * signature moves it.
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
      /** May be answered while it is revalidated in the background. */
      readonly whileRevalidating: boolean;
      /** May be answered when the upstream fails. */
      readonly ifError: boolean;
    };

/**
 * Decides whether content verified at one time may be answered at another. A verification in the
 * future means that the clock was set back: it proves nothing, so the content is stale.
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
