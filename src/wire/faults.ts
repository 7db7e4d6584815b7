import { UpstreamError } from "./errors.ts";

/** The server that a fault is reported for. */
export interface FaultPlace {
  readonly upstream: string;
  /** Scheme, host and port; never a path or a query. */
  readonly origin: string;
}

/** Failures of the other side for which an immediate retry does not help. */
const REFUSED: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "EHOSTUNREACH",
  "EHOSTDOWN",
  "ENETUNREACH",
  "EADDRNOTAVAIL",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EAI_FAIL",
  "EAI_NODATA",
  "EAI_NONAME",
]);

/** The connection was not established in time. */
const CONNECT_TIMED_OUT: ReadonlySet<string> = new Set([
  "ETIMEDOUT",
  "UND_ERR_CONNECT_TIMEOUT",
]);

const TIMED_OUT: ReadonlySet<string> = new Set([
  ...CONNECT_TIMED_OUT,
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_BODY_TIMEOUT",
]);

/** The connection ended before the answer; on a kept connection this may be the other side's idle time-out. */
const BROKEN: ReadonlySet<string> = new Set([
  "UND_ERR_SOCKET",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
]);

/** Headers that undici's parser rejects: split, too long, two lengths, not HTTP. */
const MALFORMED: ReadonlySet<string> = new Set([
  "UND_ERR_HEADERS_OVERFLOW",
  "UND_ERR_RES_CONTENT_LENGTH_MISMATCH",
  "UND_ERR_INVALID_ARG",
]);

/**
 * Codes of a rejected certificate or a failed handshake.
 *
 * @see https://nodejs.org/api/tls.html#x509-certificate-error-codes
 */
const TLS_FAILED =
  /^(?:ERR_TLS_|ERR_SSL_|EPROTO$|CERT_|CRL_|ERROR_IN_(?:CERT|CRL)_|UNABLE_TO_|INVALID_(?:CA|PURPOSE)$|PATH_LENGTH_EXCEEDED$|HOSTNAME_MISMATCH$|DEPTH_ZERO_SELF_SIGNED_CERT$|SELF_SIGNED_CERT_IN_CHAIN$)/;

const GIVEN_UP = "ENTREPOT_GIVEN_UP";
const ADDRESS_REFUSED = "ENTREPOT_ADDRESS_REFUSED";

/**
 * Creates the error of a connector that refuses to dial an address.
 *
 * @param what the class of the address, for example `private`
 */
export function addressRefused(what: string): Error {
  return Object.assign(
    new Error(
      `got a ${what} address; expected a public one, or one that redirectHosts lists`,
    ),
    { code: ADDRESS_REFUSED },
  );
}

/** True if one more try on a new connection may help. */
export function isBrokenConnection(error: unknown): boolean {
  return BROKEN.has(codeOf(error));
}

/** Converts an error that undici threw before any header. */
export function dialFault(error: unknown, place: FaultPlace): UpstreamError {
  if (error instanceof UpstreamError) return error;
  const code = codeOf(error);
  if (code === ADDRESS_REFUSED && error instanceof Error) {
    const why = `${place.origin}: ${error.message}`;
    return fault("bad-response", why, place, error);
  }
  const at = `${place.origin}: ${code === "" ? "failed" : code}`;
  if (TIMED_OUT.has(code)) return fault("timeout", at, place, error);
  return MALFORMED.has(code) || code.startsWith("HPE_")
    ? fault("bad-response", at, place, error)
    : fault("unreachable", at, place, error);
}

/**
 * Converts an error that undici threw within a body. A broken body has five forms: `UND_ERR_SOCKET`,
 * `ECONNRESET`, `UND_ERR_RES_CONTENT_LENGTH_MISMATCH`, a parser's `HPE_…`, and no error at all if the
 * body had no length (only the digest detects that one).
 */
export function bodyFault(error: unknown, place: FaultPlace): UpstreamError {
  if (error instanceof UpstreamError) return error;
  const code = codeOf(error);
  const at = `${place.origin}: the body broke (${code === "" ? "unknown" : code})`;
  return TIMED_OUT.has(code)
    ? fault("timeout", at, place, error)
    : fault("interrupted", at, place, error);
}

/** Creates the error of work that the caller's own signal ended; the upstream is not at fault. */
export function abortFault(
  signal: AbortSignal,
  place: FaultPlace,
): UpstreamError {
  const why = Object.assign(new Error("given up", { cause: signal.reason }), {
    code: GIVEN_UP,
  });
  return fault("timeout", `${place.origin}: given up`, place, why);
}

/** Waits for shared work, which continues for other callers if this caller's signal aborts. */
export async function unlessAborted<T>(
  work: Promise<T>,
  signal: AbortSignal,
  place: FaultPlace,
): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const leave = (): void => reject(abortFault(signal, place));
  if (signal.aborted) leave();
  signal.addEventListener("abort", leave, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", leave);
  }
}

/** True if the caller ended the request, or a time limit that includes the wait in our own queue. */
export function isGivenUp({ cause }: UpstreamError): boolean {
  return codeOf(cause) === GIVEN_UP;
}

/**
 * Returns how much an error says about its server. `severe`: no connection was possible; it opens a
 * breaker immediately. `mild`: the error may concern the requested resource only. Undefined: it says
 * nothing, or shows that the server answers.
 */
export function severityOf(
  error: UpstreamError,
): "severe" | "mild" | undefined {
  const { kind, status = 0 } = error;
  const code = codeOf(error.cause);
  // Nothing was dialled, or the request ended before the server could answer.
  if (code === ADDRESS_REFUSED || code === GIVEN_UP) return undefined;
  if (kind === "timeout") {
    return CONNECT_TIMED_OUT.has(code) ? "severe" : "mild";
  }
  if (kind === "unreachable") {
    return REFUSED.has(code) || TLS_FAILED.test(code) ? "severe" : "mild";
  }
  const isMild =
    kind === "unavailable" ||
    kind === "interrupted" ||
    (kind === "bad-response" && status < 400);
  return isMild ? "mild" : undefined;
}

function fault(
  kind: UpstreamError["kind"],
  message: string,
  { upstream, origin }: FaultPlace,
  cause: unknown,
): UpstreamError {
  return new UpstreamError(kind, message, { upstream, origin, cause });
}

/** An AggregateError (several addresses were tried) has the code of its first error. */
function codeOf(error: unknown): string {
  return error instanceof Error &&
    "code" in error &&
    typeof error.code === "string"
    ? error.code
    : "";
}
