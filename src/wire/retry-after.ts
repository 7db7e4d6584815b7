import type { Clock } from "../telemetry/clock.ts";
import type { Answer } from "./exchange.ts";

/** Upper bound of the pause that an upstream can request. */
export const MAX_UPSTREAM_RETRY_AFTER_MS = 15 * 60_000;

/** A 429 with a shorter pause is throttling, not a quota; the request waits and is sent again. */
export const MAX_WAITED_MS = 1_000;

/** The pause after a 429 without `Retry-After`. */
export const DEFAULT_REST_MS = 30_000;

const SECONDS = /^\d+(?:\.\d+)?$/;
const HTTP_DATE =
  /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/;
const WITH_UNIT = /^(\d+(?:\.\d+)?)\s*(ns|µs|us|ms|s|m)\b/;
const IN_TEXT = /retry-after:\s*(\d+(?:\.\d+)?\s*(?:ns|µs|us|ms|s|m)\b)/i;

const UNIT_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  µs: 1e-3,
  us: 1e-3,
  ms: 1,
  s: 1_000,
  m: 60_000,
};

/**
 * Parses a `Retry-After` into milliseconds: seconds, an HTTP date, or a duration with its unit
 * (ghcr.io). At most {@link MAX_UPSTREAM_RETRY_AFTER_MS}; 0 for a date in the past; undefined for any
 * other text.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
 */
export function parseRetryAfter(
  value: string,
  nowMs: number,
): number | undefined {
  const text = value.trim();
  if (SECONDS.test(text)) return bounded(Number(text) * 1_000);
  if (HTTP_DATE.test(text)) {
    const atMs = Date.parse(text);
    return Number.isNaN(atMs) ? undefined : bounded(atMs - nowMs);
  }
  const [, amount, unit] = WITH_UNIT.exec(text) ?? [];
  const factor = unit === undefined ? undefined : UNIT_MS[unit];
  return factor === undefined ? undefined : bounded(Number(amount) * factor);
}

/**
 * Finds the pause that ghcr.io states in the message of the error only:
 * `retry-after: 1.16ms, allowed: 44000/minute`.
 */
export function findRetryAfter(
  text: string,
  nowMs: number,
): number | undefined {
  const found = IN_TEXT.exec(text)?.[1];
  return found === undefined ? undefined : parseRetryAfter(found, nowMs);
}

/** Returns the pause that a 429 or 503 requests of its server; undefined for throttling and without one. */
export function restOf(answer: Answer, clock: Clock): number | undefined {
  if (answer.status !== 429 && answer.status !== 503) return undefined;
  const retryAfterMs = retryAfterOf(answer, clock);
  if (answer.status === 503) {
    return retryAfterMs === 0 ? undefined : retryAfterMs;
  }
  return retryAfterMs !== undefined && retryAfterMs < MAX_WAITED_MS
    ? undefined
    : retryAfterMs;
}

/** Parses the `Retry-After` of an answer with any status. */
export function retryAfterOf(answer: Answer, clock: Clock): number | undefined {
  const value = answer.header("retry-after");
  return value === undefined
    ? undefined
    : parseRetryAfter(value, clock.nowMs());
}

function bounded(ms: number): number {
  return Math.min(Math.max(ms, 0), MAX_UPSTREAM_RETRY_AFTER_MS);
}
