import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { canonicalAddress, compileNetworks } from "../client-auth/networks.ts";

/** Returns the address of the client of a request. */
export type ClientAddress = (request: IncomingMessage) => string;

/** A {@link ClientAddress} whose trusted proxies may change while the mirror runs. */
export type SwitchableClientAddress = ClientAddress & {
  isTrustedProxy(address: string): boolean;
  /** @param trustedProxies addresses and CIDRs, validated */
  trust(trustedProxies: readonly string[]): void;
};

/** At most this many entries of `X-Forwarded-For` are read. */
const MAX_HOPS = 32;

/**
 * Returns the address of the connection or, if that is a trusted proxy, the last address in
 * `X-Forwarded-For` that is not a trusted proxy. Clients can write anything before that entry.
 *
 * @param trustedProxies addresses and CIDRs, validated
 */
export function createClientAddress(
  trustedProxies: readonly string[],
): SwitchableClientAddress {
  let isTrustedProxy = compileNetworks(trustedProxies);
  const of = (request: IncomingMessage): string => {
    let address = canonicalAddress(request.socket.remoteAddress);
    if (!isTrustedProxy(address)) return address;
    const header = request.headers["x-forwarded-for"];
    const hops = (typeof header === "string" ? header : "").split(",");
    for (const hop of hops.slice(-MAX_HOPS).toReversed()) {
      const next = canonicalAddress(hop.trim());
      if (isIP(next) === 0) return address;
      address = next;
      if (!isTrustedProxy(address)) return address;
    }
    return address;
  };
  return Object.assign(of, {
    isTrustedProxy: (address: string) => isTrustedProxy(address),
    trust: (networks: readonly string[]) => {
      isTrustedProxy = compileNetworks(networks);
    },
  });
}

/** Whether an address is in 127.0.0.0/8, or is ::1. */
export function isLoopbackAddress(address: string): boolean {
  return (
    address === "::1" || (isIP(address) === 4 && address.startsWith("127."))
  );
}
