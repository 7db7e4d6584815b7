import { UpstreamError } from "../../wire/errors.ts";

/** Requests in a row without progress before a fill gives up. */
const MAX_FRUITLESS = 6;

/** Bound of the requests of a fill without readers. */
const MAX_DIALS_UNREAD = 3;

/** Bound of the requests of one fill, for upstreams that cut every body. */
const MAX_DIALS = 200;

const MAX_DELAY_MS = 8_000;

/**
 * Decides whether and when a broken download is resumed; pure.
 *
 * @param state.fruitless failures in a row without progress, including this one
 * @param state.dials requests to the upstream, including this one
 * @returns the delay in milliseconds; undefined to give up
 */
export function chooseResume(
  error: unknown,
  state: {
    readonly fruitless: number;
    readonly dials: number;
    readonly hasReaders: boolean;
  },
): number | undefined {
  if (!(error instanceof UpstreamError)) return undefined;
  if (!state.hasReaders && state.dials >= MAX_DIALS_UNREAD) return undefined;
  if (state.fruitless >= MAX_FRUITLESS || state.dials >= MAX_DIALS) {
    return undefined;
  }
  switch (error.kind) {
    case "interrupted":
    case "timeout":
    case "unreachable":
    case "unavailable":
    case "bad-response":
    case "breaker-open":
    case "overloaded":
    case "rate-limited":
      // The first break is resumed immediately; repeated failures are followed by longer delays.
      return state.fruitless <= 1
        ? 0
        : Math.min(
            MAX_DELAY_MS,
            Math.max(error.retryAfterMs ?? 0, 250 * 2 ** state.fruitless),
          );
    case "unauthorized":
    case "denied":
    case "not-found":
    case "digest-mismatch":
    case "too-large":
      return undefined;
    default:
      return error.kind satisfies never;
  }
}
