import { BlockList, isIP } from "node:net";
import { parseNetwork } from "../../config/schema/forms.ts";

/** Whether an address is in one of the networks. */
export type NetworkMatcher = (address: string) => boolean;

/** @param networks addresses and CIDRs, validated */
export function compileNetworks(networks: readonly string[]): NetworkMatcher {
  if (networks.length === 0) return () => false;
  const list = new BlockList();
  for (const text of networks) {
    const network = parseNetwork(text);
    if (network === undefined)
      throw new Error(`got ${text}; expected a validated address or CIDR`);
    const { address, prefixBits, family } = network;
    list.addSubnet(address, prefixBits, family);
  }
  return (address) => {
    const version = isIP(address);
    return (
      version !== 0 && list.check(address, version === 4 ? "ipv4" : "ipv6")
    );
  };
}

/** Returns an address without its zone; IPv4 over an IPv6 socket becomes IPv4. */
export function canonicalAddress(remoteAddress: string | undefined): string {
  const [address = ""] = (remoteAddress ?? "").split("%");
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  return mapped?.[1] ?? address;
}

/**
 * Returns the source that failures are counted for. IPv6 addresses are counted by /64: a site has at
 * least 2^64 of them, and would have as many guesses.
 */
export function addressGroup(address: string): string {
  if (isIP(address) !== 6) return address;
  const [head = "", tail] = address.split("::");
  const before = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = tail === undefined ? 0 : 8 - before.length - after.length;
  const groups = [...before, ...Array<string>(zeros).fill("0"), ...after];
  return `${groups.slice(0, 4).join(":")}::/64`;
}
