import type { IncomingMessage } from "node:http";
import { isLoopbackAddress } from "./client-address.ts";
import { canonicalAddress } from "../client-auth/networks.ts";
import { countHosts, hasTooManyHeaders } from "../registry/request-head.ts";

/** The parts of a request that this file reads. */
export type RequestOrigin = Pick<
  IncomingMessage,
  "headers" | "rawHeaders" | "socket"
>;

/** A proxy on this machine sends one of these: the client behind it is elsewhere. */
const FORWARDING_HEADERS: ReadonlySet<string> = new Set([
  "via",
  "forwarded",
  "x-real-ip",
  "cf-connecting-ip",
  "true-client-ip",
]);

const FORWARDING_PREFIX = "x-forwarded-";

export interface LoopbackRules {
  /** Names in lower case that the configuration gives to the listener. */
  readonly hostnames: ReadonlySet<string>;
  /** `none`: a request with any `Origin` is not loopback; `own`: one of the listener itself may be. */
  readonly origin: "none" | "own";
}

/**
 * Whether a request comes from a program on this machine, and neither from a proxy on it nor from a
 * page in its browser. The address alone is no proof: a proxy passes on what comes from elsewhere,
 * and a page may let a name of its own resolve to 127.0.0.1 (DNS rebinding), so that `Host` must be
 * a loopback address, `localhost` or a name of the configuration.
 */
export function isLoopbackClient(
  request: RequestOrigin,
  { hostnames, origin }: LoopbackRules,
): boolean {
  const { headers, rawHeaders, socket } = request;
  return (
    isLoopbackAddress(canonicalAddress(socket.remoteAddress)) &&
    // Some releases of Node drop the last of very many: a proxy appends its own there.
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
  return name === "localhost" || isLoopbackAddress(name) || names.has(name);
}

/** The name or address in a `Host` header, in lower case, without port and brackets. */
export function hostName(host: string): string {
  const name = host.toLowerCase().replace(/:\d*$/, "");
  return name.replace(/^\[(.*)\]$/, "$1");
}
