/**
 * - `unreachable`: refused, DNS, TLS, connection lost before the headers
 * - `timeout`: no connection, headers or body bytes in time; also if the caller's signal aborted
 * - `unauthorized`: 401 although a fresh token or the credentials were sent
 * - `denied`: 403
 * - `not-found`: 404, 410
 * - `rate-limited`: 429, now or within its Retry-After; in the latter case nothing was dialled
 * - `unavailable`: 5xx
 * - `breaker-open`: every endpoint rests, or the upstream is offline by configuration
 * - `overloaded`: too many requests already wait for the upstream
 * - `bad-response`: an answer that violates the protocol
 * - `interrupted`: the body ended early or broke
 * - `digest-mismatch`, `too-large`
 */
export type UpstreamErrorKind =
  | "unreachable"
  | "timeout"
  | "unauthorized"
  | "denied"
  | "not-found"
  | "rate-limited"
  | "unavailable"
  | "breaker-open"
  | "overloaded"
  | "bad-response"
  | "interrupted"
  | "digest-mismatch"
  | "too-large";

export interface UpstreamErrorOptions {
  /** The upstream's key in the configuration. */
  readonly upstream: string;
  /** The HTTP status, if an answer was received. */
  readonly status?: number;
  readonly retryAfterMs?: number;
  /** Scheme, host and port of the server that failed: an endpoint, a token realm or a redirect target. */
  readonly origin?: string;
  /** Nothing was dialled: the error is remembered, or decided by the mirror itself. */
  readonly isLocal?: boolean;
  readonly cause?: unknown;
}

/** A fault on the upstream's side. `message` is for logs; it never holds a credential or a signed query. */
export class UpstreamError extends Error {
  readonly kind: UpstreamErrorKind;
  readonly upstream: string;
  readonly status: number | undefined;
  readonly retryAfterMs: number | undefined;
  readonly origin: string | undefined;
  readonly isLocal: boolean;

  constructor(
    kind: UpstreamErrorKind,
    message: string,
    options: UpstreamErrorOptions,
  ) {
    super(message, { cause: options.cause });
    this.name = "UpstreamError";
    this.kind = kind;
    this.upstream = options.upstream;
    this.status = options.status;
    this.retryAfterMs = options.retryAfterMs;
    this.origin = options.origin;
    this.isLocal = options.isLocal ?? false;
  }
}
