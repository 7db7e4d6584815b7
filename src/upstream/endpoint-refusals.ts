import type { HealthRefusal } from "./endpoint-health.ts";
import { UpstreamError } from "../wire/errors.ts";
import type { FaultPlace } from "../wire/faults.ts";

const MIN_RETRY_AFTER_MS = 1_000;

/** An account or a resource rests after a 429: nothing is dialled. */
export function throttled(
  place: FaultPlace,
  retryAfterMs: number,
): UpstreamError {
  return new UpstreamError("rate-limited", `${place.origin}: throttled`, {
    ...place,
    status: 429,
    retryAfterMs,
    isLocal: true,
  });
}

/** An endpoint, or one resource of it, rests after failures: nothing is dialled. */
export function refused(place: FaultPlace, rest: HealthRefusal): UpstreamError {
  const retryAfterMs = Math.max(rest.retryAfterMs, MIN_RETRY_AFTER_MS);
  if (rest.isThrottled) return throttled(place, retryAfterMs);
  const what = rest.isOfResource ? "what was asked for rests" : "rests";
  return new UpstreamError("breaker-open", `${place.origin}: ${what}`, {
    ...place,
    retryAfterMs,
    isLocal: true,
  });
}
