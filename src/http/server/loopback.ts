import type { IncomingMessage } from "node:http";
import { isLoopbackAddress } from "./client-address.ts";
import { canonicalAddress } from "../client-auth/networks.ts";
import { countHosts, hasTooManyHeaders } from "../registry/request-head.ts";

/** The parts of a request that this file reads. */
export type RequestOrigin = Pick<
  IncomingMessage,
  "headers" | "rawHeaders" | "socket"
>;

/** A proxy on this machine sends one of these headers: its client is elsewhere. */
const FORWARDING_HEADERS: ReadonlySet<string> = new Set([
  "via",
  "forwarded",
  "x-real-ip",
  "cf-connecting-ip",
  "true-client-ip",
]);

const FORWARDING_PREFIX = "x-forwarded-";

export interface LoopbackRules {
  /** Configured names of the listener, in lower case. */
  readonly hostnames: ReadonlySet<string>;
  /** `none`: a request with any `Origin` is not loopback; `own`: one of the listener itself may be. */
  readonly origin: "none" | "own";
}

/**
 * Whether a request was sent by a program on this machine, and not by a proxy on it or by a web page
 * in its browser. The address does not prove it: a proxy forwards requests from elsewhere, and a web
 * page can use a name that resolves to 127.0.0.1 (DNS rebinding). So `Host` must be a loopback
 * address, `localhost` or a configured name.
 */
export function isLoopbackClient(
  request: RequestOrigin,
  { hostnames, origin }: LoopbackRules,
): boolean {
  const { headers, rawHeaders, socket } = request;
  return (
    isLoopbackAddress(canonicalAddress(socket.remoteAddress)) &&
    // Some releases of Node drop the last headers of very many, where proxies append theirs.
    !hasTooManyHeaders(rawHeaders) &&
    !Object.keys(headers).some(isForwardingHeader) &&
    (headers.origin === undefined ||
      (origin === "own" && !hasForeignOrigin(request))) &&
    countHosts(rawHeaders) === 1 &&
    isLoopbackHost(headers.host ?? "", hostnames)
  );
}

/** Whether the request has an `Origin` that is not its own scheme and `Host`. */
export function hasForeignOrigin({ headers, socket }: RequestOrigin): boolean {
  const { host, origin } = headers;
  if (origin === undefined) return false;
  const scheme = "encrypted" in socket ? "https" : "http";
  return (
    host === undefined ||
    origin.toLowerCase() !== `${scheme}://${host.toLowerCase()}`
  );
}

/** @param name in lower case */
function isForwardingHeader(name: string): boolean {
  return FORWARDING_HEADERS.has(name) || name.startsWith(FORWARDING_PREFIX);
}

function isLoopbackHost(host: string, names: ReadonlySet<string>): boolean {
  const name = hostName(host);
  return (
    name === "localhost" ||
    isLoopbackAddress(name) ||
    names.has(name) ||
    // A configured name may have a port.
    names.has(host.toLowerCase())
  );
}

/** The name or address in a `Host` header, in lower case, without port and brackets. */
export function hostName(host: string): string {
  const name = host.toLowerCase().replace(/:\d*$/, "");
  return name.replace(/^\[(.*)\]$/, "$1");
}
