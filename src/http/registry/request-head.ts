import type { IncomingMessage } from "node:http";
import { RegistryError } from "../../oci/errors.ts";

/** Several times what engines and proxies send. Node silently drops headers beyond 2 000. */
const MAX_HEADERS = 100;

/** A meaningless body up to this size is accepted. */
const MAX_IGNORED_BODY_BYTES = 1_024;

/** `uri-host[:port]`; empty if the target has no authority. */
const HOST = /^[A-Za-z0-9._~!$&'()*+,;=:%[\]-]*$/;

/**
 * Rejects heads that Node's parser accepts, or answers without a registry error: HTTP/0.9; no `Host`
 * or several, of which a proxy may have used another one; too many headers; a body of a GET or HEAD.
 *
 * @throws RegistryError
 * @see https://www.rfc-editor.org/rfc/rfc9112#section-3.2
 */
export function assertRequestHead(request: IncomingMessage): void {
  const { httpVersion, rawHeaders } = request;
  if (httpVersion !== "1.1" && httpVersion !== "1.0") {
    throw malformed("HTTP version is neither 1.0 nor 1.1");
  }
  if (hasTooManyHeaders(rawHeaders)) {
    throw malformed("request has too many headers", 431);
  }
  const hosts = countHosts(rawHeaders);
  if (hosts > 1 || (hosts === 0 && httpVersion === "1.1")) {
    throw malformed("request must have one Host header");
  }
  if (!HOST.test(request.headers.host ?? "")) {
    throw malformed("Host header is not a valid host");
  }
  if (isRead(request) && bodyBytes(request) > MAX_IGNORED_BODY_BYTES) {
    throw malformed("GET and HEAD have no body");
  }
}

/** Whether there are more headers than Node reports reliably. */
export function hasTooManyHeaders(rawHeaders: readonly string[]): boolean {
  return rawHeaders.length > 2 * MAX_HEADERS;
}

/** Returns the number of `Host` headers: Node keeps the first, a proxy may have used the last. */
export function countHosts(rawHeaders: readonly string[]): number {
  let hosts = 0;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] ?? "";
    if (name.length === 4 && name.toLowerCase() === "host") hosts++;
  }
  return hosts;
}

/** Whether an unread body may follow, so that the connection must be closed after the response. */
export function hasUnreadBody(request: IncomingMessage): boolean {
  if (request.complete) return false;
  return bodyBytes(request) > (isRead(request) ? MAX_IGNORED_BODY_BYTES : 0);
}

function isRead({ method }: IncomingMessage): boolean {
  return method === "GET" || method === "HEAD";
}

/** The announced body size. The parser has rejected several sizes, and a size with chunks. */
function bodyBytes({ headers }: IncomingMessage): number {
  return headers["transfer-encoding"] === undefined
    ? Number(headers["content-length"] ?? 0)
    : Infinity;
}

function malformed(detail: string, status?: number): RegistryError {
  return new RegistryError("NAME_INVALID", {
    detail,
    ...(status === undefined ? {} : { status }),
  });
}
