import { LRUCache } from "lru-cache";
import type { Clock } from "../telemetry/clock.ts";
import type { UpstreamError } from "../wire/errors.ts";
import { DEFAULT_REST_MS } from "../wire/retry-after.ts";

/** The oldest failures are dropped; their resources are requested once more. */
const MAX_RESOURCES = 1_000;
const MAX_FAILURES = 3;
const FIRST_PAUSE_MS = 5_000;
const MAX_PAUSE_MS = 300_000;

interface Failures {
  /** Failures in a row. */
  count: number;
  pauseMs: number;
  /** By the monotonic clock; 0: the resource may be requested. */
  untilMs: number;
  isThrottled: boolean;
}

/** The reason why one resource is not requested now. */
export interface ResourceRest {
  readonly retryAfterMs: number;
  /** The resource was answered 429. */
  readonly isThrottled: boolean;
}

/**
 * Pauses of single blobs, lists and manifests of an endpoint: after a 429, a `Retry-After`, a time-out or
 * repeated failures, a resource rests while the others stay available.
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

/** Returns undefined if the resource may be requested again immediately. */
function restOf(
  failures: Failures,
  { kind, retryAfterMs }: UpstreamError,
): number | undefined {
  if (kind === "rate-limited") return retryAfterMs ?? DEFAULT_REST_MS;
  if (retryAfterMs !== undefined) return retryAfterMs;
  // One time-out is enough: no second client waits for it.
  if (kind !== "timeout" && failures.count < MAX_FAILURES) return undefined;
  const { pauseMs } = failures;
  failures.pauseMs = Math.min(pauseMs * 2, MAX_PAUSE_MS);
  return pauseMs;
}
