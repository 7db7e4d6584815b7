import { UpstreamError } from "../../wire/errors.ts";

/** Dials in a row that brought next to nothing, before a fill gives up. */
const MAX_FRUITLESS = 6;

/** A fill that nobody reads is worth no more than this. */
const MAX_DIALS_UNREAD = 3;

/** An upstream that cuts after every few bytes is not followed for ever. */
const MAX_DIALS = 200;

const MAX_DELAY_MS = 8_000;

/**
 * Whether and when a broken download is resumed; pure.
 *
 * @param state.fruitless failures in a row, this one included, since bytes last came
 * @param state.dials upstream bodies that were opened or tried, this one included
 * @returns milliseconds to wait, or undefined to give up
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
      // The first break is resumed at once; an upstream that goes on failing is given time.
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
