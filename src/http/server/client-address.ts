import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { canonicalAddress, compileNetworks } from "../client-auth/networks.ts";

/** Who a request comes from. */
export type ClientAddress = (request: IncomingMessage) => string;

/** A {@link ClientAddress} whose trusted proxies may change while the mirror runs. */
export type SwitchableClientAddress = ClientAddress & {
  isTrustedProxy(address: string): boolean;
  /** @param trustedProxies addresses and CIDRs, validated */
  trust(trustedProxies: readonly string[]): void;
};

/** A header that somebody fills is not walked for ever. */
const MAX_HOPS = 32;

/**
 * The client's address: the connection's own, unless that is a trusted proxy's. Then it is the last
 * of `X-Forwarded-For` that is no trusted proxy: what stands before it was written by strangers.
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

/** Of 127.0.0.0/8 or ::1. */
export function isLoopbackAddress(address: string): boolean {
  return (
    address === "::1" || (isIP(address) === 4 && address.startsWith("127."))
  );
}
