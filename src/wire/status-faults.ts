import type { Clock } from "../telemetry/clock.ts";
import { UpstreamError, type UpstreamErrorKind } from "./errors.ts";
import type { Answer } from "./exchange.ts";
import { restOf } from "./retry-after.ts";

/**
 * Converts the status of an answer to an error; undefined for 200 and 206, which the caller
 * distinguishes. Does not read the body.
 */
export function statusFault(
  answer: Answer,
  upstream: string,
  clock: Clock,
): UpstreamError | undefined {
  const { status, url } = answer;
  if (status === 200 || status === 206) return undefined;
  const retryAfterMs = restOf(answer, clock);
  return new UpstreamError(
    kindOf(status),
    `${url.origin}: got status ${status}`,
    {
      upstream,
      origin: url.origin,
      status,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    },
  );
}

function kindOf(status: number): UpstreamErrorKind {
  switch (status) {
    case 401:
      return "unauthorized";
    case 403:
      return "denied";
    case 404:
    case 410:
      return "not-found";
    case 429:
      return "rate-limited";
    default:
      return status >= 500 ? "unavailable" : "bad-response";
  }
}
