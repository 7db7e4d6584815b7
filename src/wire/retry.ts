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

/** ghcr.io says 1.16 ms and means it less than it says. */
const MIN_WAIT_MS = 100;
const MAX_THROTTLED_TRIES = 3;
const JITTER_MS = 200;
const MAX_ERROR_TEXT_BYTES = 8_192;
const MAX_ERROR_TEXT_MS = 2_000;

/** Worth one more try at once: a restarting backend. 504 is not: its time-out is long over. */
const RETRIED_STATUSES: ReadonlySet<number> = new Set([500, 502, 503]);

/** Their 429 is a brake of milliseconds that is told in the body, which the answer to a HEAD has not. */
const BRAKING_HOSTS: ReadonlySet<string> = new Set(["ghcr.io"]);

/** An answer that holds a slot. */
export interface HeldAnswer {
  readonly answer: Answer;
  /** Gives the slot back; the body is no longer of interest. */
  readonly release: () => void;
}

export interface RetryOptions {
  readonly upstream: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Takes a slot and asks once. */
  readonly send: () => Promise<HeldAnswer>;
  /** Told of a 429 that is thrown, while its slot is still held. */
  readonly beforeRelease?: (error: UpstreamError) => void;
}

/**
 * Sends, and sends again: once for a server's fault, with jitter, and a few times where a 429 asks
 * for less than a second.
 *
 * @throws UpstreamError `rate-limited` for any other 429, and whatever `send` throws
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
          `${place.origin}: 429`,
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
    const isWorthIt =
      RETRIED_STATUSES.has(status) && restOf(answer, clock) === undefined;
    if (!isWorthIt || isRetried) return held;
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
  return text === "" && BRAKING_HOSTS.has(url.hostname)
    ? 0
    : findRetryAfter(text, clock.nowMs());
}

/** The start of an error's body; whatever goes wrong, what came so far. */
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
    // It is only looked at for a hint.
  } finally {
    clearTimeout(timer);
  }
  return Buffer.concat(chunks).toString("utf8", 0, MAX_ERROR_TEXT_BYTES);
}
