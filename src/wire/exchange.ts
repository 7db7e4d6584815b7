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
  /** POST is for token realms alone. */
  readonly method: "GET" | "HEAD" | "POST";
  readonly url: URL;
  /** Of a POST. */
  readonly body?: string;
  /** From {@link requestHeaders} and nowhere else. */
  readonly headers: Readonly<Record<string, string>>;
  /** Ends the wait for headers, and the body after them. */
  readonly signal: AbortSignal;
}

/** Headers are in. The body must be read to its end, discarded or destroyed. */
export interface Answer {
  readonly status: number;
  readonly url: URL;
  /** The first of several, or all joined by a comma, as in a list header. */
  readonly header: (name: string) => string | undefined;
  readonly body: Readable;
  /** How long a body that is read whole may stand still. */
  readonly patienceMs: number;
}

/** One request and the headers of its answer. */
export type Exchange = (request: ExchangeRequest) => Promise<Answer>;

export interface ExchangeOptions {
  readonly config: UpstreamConfig;
  readonly dispatchers: Dispatchers;
  readonly clock: Clock;
  readonly observer: UpstreamObserver;
}

/** undici's timers tick each half second and may be late by one tick each. */
const TIMER_SLACK_MS = 1_500;

/**
 * Makes the one function that puts requests on the wire. It follows nothing and judges no status;
 * a connection that broke before a header is tried once more on a new one, since a kept
 * connection may have been closed by the other side at that very moment.
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
  // undici starts its own time-out anew with every 1xx; this one ends an endless row of them.
  const deadline = setTimeout(
    () => {
      ours.abort(
        new UpstreamError("timeout", `${place.origin}: no headers`, place),
      );
    },
    config.connectTimeoutMs + config.headersTimeoutMs + TIMER_SLACK_MS,
  );
  const patienceMs = Math.min(config.idleTimeoutMs, config.headersTimeoutMs);
  const startMs = clock.monotonicMs();
  const tell = (status: number | "error"): void =>
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
    // Whoever reads it listens for itself; a body that nobody came to read must not end the process.
    response.body.on("error", () => {});
    response.body.once("close", unlink);
    tell(response.statusCode);
    return {
      status: response.statusCode,
      url,
      header: (name) => headerText(response.headers[name]),
      body: response.body,
      patienceMs,
    };
  } catch (error) {
    unlink();
    tell("error");
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
