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

const TIMED_OUT: ReadonlySet<string> = new Set([
  "ETIMEDOUT",
  "UND_ERR_CONNECT_TIMEOUT",
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

/** The connection stood, and no answer came: one slow object rather than a dead server. */
export function isSlowAnswer({ cause }: UpstreamError): boolean {
  return codeOf(cause) === "UND_ERR_HEADERS_TIMEOUT";
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
  return fault("timeout", `${place.origin}: given up`, place, signal.reason);
}

/**
 * How much an error says of the server it came from: `severe` opens a breaker at once. Answers,
 * even unwelcome ones, say that it lives.
 */
export function severityOf(
  error: UpstreamError,
): "severe" | "mild" | undefined {
  const { kind, status = 0 } = error;
  if (kind === "timeout") return "severe";
  // Nobody was asked.
  if (codeOf(error.cause) === ADDRESS_REFUSED) return undefined;
  if (kind === "unreachable") {
    return REFUSED.has(codeOf(error.cause)) ? "severe" : "mild";
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
