import type { Clock } from "../telemetry/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { Victim } from "./choose-victims.ts";

/** A closed list, because it labels a metric. */
const EVICTION_REASONS = ["size", "free", "idle", "operator", "index"] as const;

export type EvictionReason = (typeof EVICTION_REASONS)[number];

export interface EvictionReportOptions {
  readonly clock: Clock;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly metrics?: Pick<
    Metrics,
    "evictedImages" | "evictedBytes" | "oldestEvictedAge"
  >;
}

/** Logs and counts evictions. */
export class EvictionReport {
  readonly #options: EvictionReportOptions;
  #isExhausted = false;

  constructor(options: EvictionReportOptions) {
    this.#options = options;
    // Otherwise a rate would miss the first eviction.
    for (const reason of EVICTION_REASONS) {
      options.metrics?.evictedImages.inc({ reason }, 0);
    }
  }

  eviction(victim: Victim, freedBytes: number, reason: EvictionReason): void {
    const { metrics, log, clock } = this.#options;
    const { key, reference, digest, usedAtMs } = victim.root;
    const idleSeconds = Math.max(0, clock.nowMs() - usedAtMs) / 1000;
    metrics?.evictedImages.inc({ reason });
    metrics?.evictedBytes.inc(freedBytes);
    metrics?.oldestEvictedAge.set(idleSeconds);
    log.info(
      {
        upstream: key.upstream,
        repository: key.repository,
        reference: reference.kind === "tag" ? reference.tag : digest,
        reason,
        sizeBytes: freedBytes,
        idleSeconds: Math.round(idleSeconds),
      },
      "evicted an image from the cache",
    );
  }

  /**
   * Logs once that a limit can't be met: the remaining content is hosted, pinned, kept by a pattern or in
   * use.
   *
   * @param target what a check had to free; undefined: nothing
   */
  exhaustion(
    target:
      | { readonly reason: EvictionReason; readonly goalBytes: number }
      | undefined,
    victims: number,
  ): void {
    const isExhausted = target !== undefined && victims === 0;
    if (isExhausted && !this.#isExhausted) {
      this.#options.log.warn(
        { reason: target.reason, excessBytes: target.goalBytes },
        "a storage limit is exceeded and no image can be evicted",
      );
    }
    this.#isExhausted = isExhausted;
  }
}
