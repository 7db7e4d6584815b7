import type { Readable } from "node:stream";
import type { Dispatcher } from "undici";
import type { UpstreamConfig } from "../config/config.ts";
import type { Clock } from "../telemetry/clock.ts";
import type { Dispatchers } from "./dispatcher.ts";
import { UpstreamError } from "./errors.ts";
import { abortFault, dialFault, isBrokenConnection } from "./faults.ts";
import type { UpstreamObserver, UpstreamRequestKind } from "./observer.ts";

export interface ExchangeRequest {
  readonly kind: UpstreamRequestKind;
  /** POST is used for token realms only. */
  readonly method: "GET" | "HEAD" | "POST";
  readonly url: URL;
  /** The body of a POST. */
  readonly body?: string;
  /** Created by {@link requestHeaders} only. */
  readonly headers: Readonly<Record<string, string>>;
  /** Ends the wait for headers and, after them, the body. */
  readonly signal: AbortSignal;
}

/** An answer whose headers were received. The body must be read to its end, discarded or destroyed. */
export interface Answer {
  readonly status: number;
  readonly url: URL;
  /** Returns a header; several of one name are joined by commas. */
  readonly header: (name: string) => string | undefined;
  readonly body: Readable;
  /** How long a small body may pause. */
  readonly patienceMs: number;
}

/** Sends one request and resolves with the headers of its answer. */
export type Exchange = (request: ExchangeRequest) => Promise<Answer>;

export interface ExchangeOptions {
  readonly config: UpstreamConfig;
  readonly dispatchers: Dispatchers;
  readonly clock: Clock;
  readonly observer: UpstreamObserver;
}

/** undici's timers tick every half second; each may be late by one tick. */
const TIMER_SLACK_MS = 1_500;

/**
 * Creates the function that sends requests. It does not follow redirects or judge statuses. A request
 * whose connection broke before the headers is sent once more on a new connection, because the other
 * side may have just closed the kept one.
 */
export function createExchange(options: ExchangeOptions): Exchange {
  const { config, dispatchers } = options;

  return async (request) => {
    const place = { upstream: config.name, origin: request.url.origin };
    if (request.signal.aborted) throw abortFault(request.signal, place);
    try {
      return await dial(
        options,
        request,
        await dispatchers.pooled(request.url),
      );
    } catch (error) {
      if (!isBrokenConnection(error)) throw dialFault(error, place);
    }
    try {
      return await dial(
        options,
        request,
        await dispatchers.unpooled(request.url),
      );
    } catch (error) {
      throw dialFault(error, place);
    }
  };
}

async function dial(
  { config, clock, observer }: ExchangeOptions,
  { kind, method, url, body, headers, signal }: ExchangeRequest,
  dispatcher: Dispatcher,
): Promise<Answer> {
  const place = { upstream: config.name, origin: url.origin };
  const ours = new AbortController();
  const onAbort = (): void => ours.abort(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  const unlink = (): void => signal.removeEventListener("abort", onAbort);
  // undici restarts its time-out with every 1xx answer; this deadline ends an endless series of them.
  const deadline = setTimeout(
    () => {
      ours.abort(
        new UpstreamError(
          "timeout",
          `${place.origin}: got no headers in time`,
          place,
        ),
      );
    },
    config.connectTimeoutMs + config.headersTimeoutMs + TIMER_SLACK_MS,
  );
  const patienceMs = Math.min(config.idleTimeoutMs, config.headersTimeoutMs);
  const startMs = clock.monotonicMs();
  const report = (status: number | "error"): void =>
    observer.onResponse({
      kind,
      method,
      status,
      durationMs: clock.monotonicMs() - startMs,
    });

  try {
    const response = await dispatcher.request({
      origin: url.origin,
      path: url.pathname + url.search,
      method,
      headers,
      ...(body === undefined ? {} : { body }),
      signal: ours.signal,
      ...(kind === "blob" ? {} : { bodyTimeout: patienceMs }),
    });
    // Readers add their own listener; the error of a body without a reader must not end the process.
    response.body.on("error", () => {});
    response.body.once("close", unlink);
    report(response.statusCode);
    return {
      status: response.statusCode,
      url,
      header: (name) => headerText(response.headers[name]),
      body: response.body,
      patienceMs,
    };
  } catch (error) {
    unlink();
    report("error");
    throw signal.aborted ? abortFault(signal, place) : error;
  } finally {
    clearTimeout(deadline);
  }
}

function headerText(
  value: string | readonly string[] | undefined,
): string | undefined {
  return value === undefined || typeof value === "string"
    ? value
    : value.join(", ");
}
