import type { HealthRefusal } from "./endpoint-health.ts";
import { UpstreamError } from "../wire/errors.ts";
import type { FaultPlace } from "../wire/faults.ts";

const MIN_RETRY_AFTER_MS = 1_000;

/** Creates the error for an account or a resource that rests after a 429; nothing is dialled. */
export function throttled(
  place: FaultPlace,
  retryAfterMs: number,
): UpstreamError {
  return new UpstreamError(
    "rate-limited",
    `${place.origin}: rests after a 429`,
    {
      ...place,
      status: 429,
      retryAfterMs,
      isLocal: true,
    },
  );
}

/** Creates the error for an endpoint, or a resource of it, that rests after failures; nothing is dialled. */
export function refused(place: FaultPlace, rest: HealthRefusal): UpstreamError {
  const retryAfterMs = Math.max(rest.retryAfterMs, MIN_RETRY_AFTER_MS);
  if (rest.isThrottled) return throttled(place, retryAfterMs);
  const subject = rest.isOfResource ? "the resource" : "the endpoint";
  return new UpstreamError(
    "breaker-open",
    `${place.origin}: ${subject} rests after failures`,
    {
      ...place,
      retryAfterMs,
      isLocal: true,
    },
  );
}
