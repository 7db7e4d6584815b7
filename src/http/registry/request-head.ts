import type { IncomingMessage } from "node:http";
import { RegistryError } from "../../oci/errors.ts";

/** Several times what engines and the proxies before them send. Node would drop what is beyond 2 000, and say nothing. */
const MAX_HEADERS = 100;

/** A body that means nothing is let pass up to here. */
const MAX_IGNORED_BODY_BYTES = 1_024;

/** `uri-host[:port]`; empty where the target has no authority. */
const HOST = /^[A-Za-z0-9._~!$&'()*+,;=:%[\]-]*$/;

/**
 * What Node's parser lets pass, or answers without a body of ours: HTTP/0.9, a request that names
 * no host or several, of which a proxy in front may have believed another one, more headers than
 * anybody has, and a body where there is none to be read.
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
    throw malformed("Host is no host");
  }
  if (isRead(request) && bodyBytes(request) > MAX_IGNORED_BODY_BYTES) {
    throw malformed("GET and HEAD have no body");
  }
}

/** Whether some of the headers may be missing here. */
export function hasTooManyHeaders(rawHeaders: readonly string[]): boolean {
  return rawHeaders.length > 2 * MAX_HEADERS;
}

/** How many `Host` headers there are: Node keeps the first, a proxy may have believed the last. */
export function countHosts(rawHeaders: readonly string[]): number {
  let hosts = 0;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] ?? "";
    if (name.length === 4 && name.toLowerCase() === "host") hosts++;
  }
  return hosts;
}

/** Whether a body may follow that nobody here reads: its connection ends with the answer. */
export function hasUnreadBody(request: IncomingMessage): boolean {
  return !isRead(request) || bodyBytes(request) > MAX_IGNORED_BODY_BYTES;
}

function isRead({ method }: IncomingMessage): boolean {
  return method === "GET" || method === "HEAD";
}

/** As the head tells; the parser has seen that it is one number, and not beside chunks. */
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
