import { LRUCache } from "lru-cache";
import type { Clock } from "../telemetry/clock.ts";
import type { UpstreamError } from "../wire/errors.ts";
import { DEFAULT_REST_MS } from "../wire/retry-after.ts";

/** Of those that failed longest ago nothing is remembered: they are asked for once more. */
const MAX_RESOURCES = 1_000;
const MAX_FAILURES = 3;
const FIRST_PAUSE_MS = 5_000;
const MAX_PAUSE_MS = 300_000;

interface Failures {
  /** In a row. */
  count: number;
  pauseMs: number;
  /** By the monotonic clock; 0: it may be asked for. */
  untilMs: number;
  isThrottled: boolean;
}

/** Why one resource is not asked for now. */
export interface ResourceRest {
  readonly retryAfterMs: number;
  /** A 429 was answered for it. */
  readonly isThrottled: boolean;
}

/**
 * What an endpoint answered about single blobs, lists and manifests: one that is throttled, asks to
 * be left alone, does not come in time or fails again and again rests alone.
 */
export class ResourceRests {
  readonly #clock: Clock;
  readonly #failures = new LRUCache<string, Failures>({ max: MAX_RESOURCES });

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get(resource: string): ResourceRest | undefined {
    const failures = this.#failures.get(resource);
    if (failures === undefined) return undefined;
    const retryAfterMs = failures.untilMs - this.#clock.monotonicMs();
    if (retryAfterMs <= 0) return undefined;
    return { retryAfterMs, isThrottled: failures.isThrottled };
  }

  noteSuccess(resource: string): void {
    this.#failures.delete(resource);
  }

  noteFailure(resource: string, error: UpstreamError): void {
    const failures = this.#failures.get(resource) ?? {
      count: 0,
      pauseMs: FIRST_PAUSE_MS,
      untilMs: 0,
      isThrottled: false,
    };
    this.#failures.set(resource, failures);
    failures.count += 1;
    failures.isThrottled = error.kind === "rate-limited";
    const restMs = restOf(failures, error);
    if (restMs !== undefined) {
      failures.untilMs = this.#clock.monotonicMs() + restMs;
    }
  }
}

/** Returns undefined if it may be asked for again immediately. */
function restOf(
  failures: Failures,
  { kind, retryAfterMs }: UpstreamError,
): number | undefined {
  if (kind === "rate-limited") return retryAfterMs ?? DEFAULT_REST_MS;
  if (retryAfterMs !== undefined) return retryAfterMs;
  // A time-out is not waited for twice.
  if (kind !== "timeout" && failures.count < MAX_FAILURES) return undefined;
  const { pauseMs } = failures;
  failures.pauseMs = Math.min(pauseMs * 2, MAX_PAUSE_MS);
  return pauseMs;
}
