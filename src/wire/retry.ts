import { setTimeout as pause } from "node:timers/promises";
import type { Clock } from "../telemetry/clock.ts";
import { discardBody } from "./body.ts";
import { UpstreamError } from "./errors.ts";
import type { Answer } from "./exchange.ts";
import { abortFault } from "./faults.ts";
import {
  DEFAULT_REST_MS,
  findRetryAfter,
  MAX_WAITED_MS,
  restOf,
  retryAfterOf,
} from "./retry-after.ts";

/** ghcr.io states pauses as short as 1.16 ms, after which it still throttles. */
const MIN_WAIT_MS = 100;
const MAX_THROTTLED_TRIES = 3;
const JITTER_MS = 200;
const MAX_ERROR_TEXT_BYTES = 8_192;
const MAX_ERROR_TEXT_MS = 2_000;

/** Retried once, with a short delay: a backend may be restarting. Not 504: its time-out has already passed. */
const RETRIED_STATUSES: ReadonlySet<number> = new Set([500, 502, 503]);

/** Hosts whose 429 throttles for milliseconds, stated in a body that the answer to a HEAD lacks. */
const THROTTLING_HOSTS: ReadonlySet<string> = new Set(["ghcr.io"]);

/** An answer that holds a slot. */
export interface HeldAnswer {
  readonly answer: Answer;
  /** Releases the slot; the body is no longer used. */
  readonly release: () => void;
}

export interface RetryOptions {
  readonly upstream: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Takes a slot and sends the request once. */
  readonly send: () => Promise<HeldAnswer>;
  /** Called with a 429 that is going to be thrown, while its slot is still held. */
  readonly beforeRelease?: (error: UpstreamError) => void;
}

/**
 * Sends a request and retries it: once after a server error, with jitter, and a few times after a
 * 429 whose pause is below a second.
 *
 * @throws UpstreamError `rate-limited` for any other 429, and the errors of `send`
 */
export async function sendWithRetry(
  options: RetryOptions,
): Promise<HeldAnswer> {
  const { upstream, clock, signal, send, beforeRelease } = options;
  let isRetried = false;
  for (let throttled = 1; ;) {
    const held = await send();
    const { answer } = held;
    const { status, url } = answer;
    const place = { upstream, origin: url.origin };
    if (status === 429) {
      const retryAfterMs =
        retryAfterOf(answer, clock) ??
        findHint(await readErrorText(answer), url, clock);
      if (
        retryAfterMs === undefined ||
        retryAfterMs >= MAX_WAITED_MS ||
        throttled > MAX_THROTTLED_TRIES
      ) {
        const error = new UpstreamError(
          "rate-limited",
          `${place.origin}: got status 429`,
          {
            ...place,
            status,
            retryAfterMs: Math.max(
              retryAfterMs ?? DEFAULT_REST_MS,
              MAX_WAITED_MS,
            ),
          },
        );
        beforeRelease?.(error);
        dismiss(held);
        throw error;
      }
      dismiss(held);
      await wait(
        Math.max(retryAfterMs, MIN_WAIT_MS) * throttled,
        signal,
        place,
      );
      throttled += 1;
      continue;
    }
    const isRetryable =
      RETRIED_STATUSES.has(status) && restOf(answer, clock) === undefined;
    if (!isRetryable || isRetried) return held;
    dismiss(held);
    isRetried = true;
    await wait(0, signal, place);
  }
}

export function dismiss({ answer, release }: HeldAnswer): void {
  discardBody(answer.body);
  release();
}

async function wait(
  durationMs: number,
  signal: AbortSignal,
  place: { readonly upstream: string; readonly origin: string },
): Promise<void> {
  try {
    await pause(durationMs + Math.random() * JITTER_MS, undefined, { signal });
  } catch {
    throw abortFault(signal, place);
  }
}

function findHint(text: string, url: URL, clock: Clock): number | undefined {
  return text === "" && THROTTLING_HOSTS.has(url.hostname)
    ? 0
    : findRetryAfter(text, clock.nowMs());
}

/** Reads the start of an error's body; returns the bytes received so far if it breaks. */
async function readErrorText({ body }: Answer): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const timer = setTimeout(() => body.destroy(), MAX_ERROR_TEXT_MS);
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes >= MAX_ERROR_TEXT_BYTES) break;
    }
  } catch {
    // The text is only searched for a hint.
  } finally {
    clearTimeout(timer);
  }
  return Buffer.concat(chunks).toString("utf8", 0, MAX_ERROR_TEXT_BYTES);
}
