import { UpstreamError } from "./errors.ts";

/** Whom a fault is told of. */
export interface FaultPlace {
  readonly upstream: string;
  /** Scheme, host and port; never a path or a query. */
  readonly origin: string;
}

/** What is the other side's, and cannot be cured by asking again at once. */
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

/** No connection in time. */
const CONNECT_TIMED_OUT: ReadonlySet<string> = new Set([
  "ETIMEDOUT",
  "UND_ERR_CONNECT_TIMEOUT",
]);

const TIMED_OUT: ReadonlySet<string> = new Set([
  ...CONNECT_TIMED_OUT,
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_BODY_TIMEOUT",
]);

/** A connection that ended where an answer was due; on a kept one, the other side's idle time-out. */
const BROKEN: ReadonlySet<string> = new Set([
  "UND_ERR_SOCKET",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
]);

/** Headers that undici's parser refuses: split, too long, two lengths, no HTTP at all. */
const MALFORMED: ReadonlySet<string> = new Set([
  "UND_ERR_HEADERS_OVERFLOW",
  "UND_ERR_RES_CONTENT_LENGTH_MISMATCH",
  "UND_ERR_INVALID_ARG",
]);

/**
 * A certificate or a handshake that is refused.
 *
 * @see https://nodejs.org/api/tls.html#x509-certificate-error-codes
 */
const TLS_FAILED =
  /^(?:ERR_TLS_|ERR_SSL_|EPROTO$|CERT_|CRL_|ERROR_IN_(?:CERT|CRL)_|UNABLE_TO_|INVALID_(?:CA|PURPOSE)$|PATH_LENGTH_EXCEEDED$|HOSTNAME_MISMATCH$|DEPTH_ZERO_SELF_SIGNED_CERT$|SELF_SIGNED_CERT_IN_CHAIN$)/;

const GIVEN_UP = "ENTREPOT_GIVEN_UP";
const ADDRESS_REFUSED = "ENTREPOT_ADDRESS_REFUSED";

/**
 * For a connector that is not to dial an address.
 *
 * @param what the address is, as in `private`
 */
export function addressRefused(what: string): Error {
  return Object.assign(
    new Error(`a ${what} address, which redirectHosts does not name`),
    { code: ADDRESS_REFUSED },
  );
}

/** Whether one more try on a new connection may help. */
export function isBrokenConnection(error: unknown): boolean {
  return BROKEN.has(codeOf(error));
}

/** What undici threw before any header, as an error of ours. */
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
 * What undici threw in mid-body. One fault has five shapes there: `UND_ERR_SOCKET`, `ECONNRESET`,
 * `UND_ERR_RES_CONTENT_LENGTH_MISMATCH`, a parser's `HPE_…`, and no error at all where the body
 * had no length (that one only the digest finds).
 */
export function bodyFault(error: unknown, place: FaultPlace): UpstreamError {
  if (error instanceof UpstreamError) return error;
  const code = codeOf(error);
  const at = `${place.origin}: the body broke (${code === "" ? "unknown" : code})`;
  return TIMED_OUT.has(code)
    ? fault("timeout", at, place, error)
    : fault("interrupted", at, place, error);
}

/** The caller's own signal ended it; nobody upstream is to blame. */
export function abortFault(
  signal: AbortSignal,
  place: FaultPlace,
): UpstreamError {
  const why = Object.assign(new Error("given up", { cause: signal.reason }), {
    code: GIVEN_UP,
  });
  return fault("timeout", `${place.origin}: given up`, place, why);
}

/** Waits for work that goes on for others, or until the caller's own signal aborts. */
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

/** Whether a request was ended by its caller, or by a bound that also counts time in our own queue. */
export function isGivenUp({ cause }: UpstreamError): boolean {
  return codeOf(cause) === GIVEN_UP;
}

/**
 * How much an error says of the server it came from: `severe`, no connection could be made, opens a
 * breaker immediately; `mild` says more of what was asked for. Answers, even unwelcome ones, say that
 * it lives.
 */
export function severityOf(
  error: UpstreamError,
): "severe" | "mild" | undefined {
  const { kind, status = 0 } = error;
  const code = codeOf(error.cause);
  // Nothing was dialled, or nothing was learnt.
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

/** Of an AggregateError (several addresses tried) too: Node gives it the first one's code. */
function codeOf(error: unknown): string {
  return error instanceof Error &&
    "code" in error &&
    typeof error.code === "string"
    ? error.code
    : "";
}
