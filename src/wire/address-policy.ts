import { BlockList, isIP } from "node:net";
import { parseNetwork } from "../config/schema/forms.ts";
import { compilePattern, type PatternMatcher } from "../oci/glob.ts";

/**
 * The class of an address. `public` is every address of no other class; `metadata` are the fixed
 * addresses at which clouds provide credentials to their machines.
 */
export type AddressClass =
  "public" | "loopback" | "private" | "link-local" | "metadata" | "reserved";

/** An address belongs to the first class whose ranges include it. */
const CLASSES: readonly (readonly [AddressClass, readonly string[]])[] = [
  [
    "metadata",
    [
      "169.254.169.254", // AWS, Azure, Google and most others
      "169.254.170.2", // AWS, of a task
      "169.254.170.23", // AWS, of a pod
      "fd00:ec2::254",
      "fd00:ec2::23",
      "fd20:ce::254", // Google
      "100.100.100.200", // Alibaba
      "168.63.129.16", // Azure, of the host
      "192.0.0.192", // Oracle
    ],
  ],
  // 0.0.0.0/8 and :: reach this machine.
  ["loopback", ["127.0.0.0/8", "0.0.0.0/8", "::1", "::"]],
  ["link-local", ["169.254.0.0/16", "fe80::/10"]],
  [
    "private",
    [
      "10.0.0.0/8",
      "172.16.0.0/12",
      "192.168.0.0/16",
      "100.64.0.0/10", // RFC 6598, carrier-grade NAT
      "192.0.0.0/24",
      "198.18.0.0/15",
      "fc00::/7",
      "fec0::/10",
      "64:ff9b:1::/48", // RFC 8215, NAT64 of a site's own
    ],
  ],
  ["reserved", ["224.0.0.0/4", "240.0.0.0/4", "ff00::/8", "2001::/32"]],
];

const LISTS = CLASSES.map(([name, ranges]) => {
  const list = new BlockList();
  for (const range of ranges) addRange(list, range);
  return [name, list] as const;
});

/** Classes that an operator's own network may belong to. */
const HOMES: ReadonlySet<AddressClass> = new Set<AddressClass>([
  "loopback",
  "private",
  "link-local",
]);

/**
 * Decides which addresses a redirect or a token realm may lead to: public ones, addresses of the same
 * class as the endpoint's own, and those that `redirectHosts` lists. It judges the address that is
 * about to be dialled, so that a name cannot resolve to another address after the check.
 */
export class AddressPolicy {
  readonly #homes = new Set<AddressClass>();
  readonly #hosts: readonly PatternMatcher[];
  readonly #ranges = new BlockList();

  /** @param redirectHosts host globs and CIDRs, checked by the schema */
  constructor(redirectHosts: readonly string[]) {
    const hosts: PatternMatcher[] = [];
    for (const text of redirectHosts) {
      if (parseNetwork(text) === undefined) hosts.push(compileHostGlob(text));
      else addRange(this.#ranges, text);
    }
    this.#hosts = hosts;
  }

  /** Notes the address of the endpoint: its class is allowed from now on. */
  noteHome(address: string): void {
    const found = classifyAddress(address);
    if (HOMES.has(found)) this.#homes.add(found);
  }

  /**
   * Returns the class for which an address is refused; undefined if it may be dialled.
   *
   * @param hostname the host of the URL: the address itself, without brackets, or the name that resolved to it
   */
  refuse(hostname: string, address: string): AddressClass | undefined {
    const found = classifyAddress(address);
    if (found === "public" || this.#homes.has(found)) return undefined;
    if (this.#isListed(address)) return undefined;
    const isNamed =
      (found === "loopback" || found === "private") &&
      this.#hosts.some((matches) => matches(hostPath(hostname), undefined));
    return isNamed ? undefined : found;
  }

  #isListed(address: string): boolean {
    return [address, embeddedAddress(address)].some(
      (one) =>
        one !== undefined &&
        this.#ranges.check(withoutZone(one), familyOf(one)),
    );
  }
}

/** Returns the class of an IPv4 or IPv6 address without brackets; any other text is `reserved`. */
export function classifyAddress(address: string): AddressClass {
  const plain = withoutZone(address);
  if (isIP(plain) === 0) return "reserved";
  const judged = embeddedAddress(plain) ?? plain;
  const family = familyOf(judged);
  for (const [name, list] of LISTS) {
    if (list.check(judged, family)) return name;
  }
  return "public";
}

/**
 * Returns the IPv4 address that is embedded in an IPv6 address: mapped (`::ffff:0:0/96`), translated
 * (`::ffff:0:0:0/96`), compatible (`::/96`), NAT64 (`64:ff9b::/96`) and 6to4 (`2002::/16`).
 */
function embeddedAddress(address: string): string | undefined {
  const plain = withoutZone(address);
  if (isIP(plain) !== 6) return undefined;
  const groups = parseGroups(plain);
  const prefix = groups.slice(0, 6).join(":");
  const isTail =
    prefix === "0:0:0:0:0:65535" ||
    prefix === "0:0:0:0:65535:0" ||
    prefix === "100:65435:0:0:0:0" ||
    // :: and ::1 embed no IPv4 address.
    (prefix === "0:0:0:0:0:0" && (groups[6] !== 0 || (groups[7] ?? 0) > 1));
  if (isTail) return quad(groups[6], groups[7]);
  return groups[0] === 0x2002 ? quad(groups[1], groups[2]) : undefined;
}

function quad(high = 0, low = 0): string {
  return [high >> 8, high & 255, low >> 8, low & 255].join(".");
}

/** Returns the eight groups of a valid IPv6 address. */
function parseGroups(address: string): readonly number[] {
  // The host of a URL is normalised: no dotted quad at its end.
  const normal = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [head = "", tail] = normal.split("::", 2);
  const start = readGroups(head);
  if (tail === undefined) return start;
  const end = readGroups(tail);
  return [
    ...start,
    ...Array<number>(8 - start.length - end.length).fill(0),
    ...end,
  ];
}

function readGroups(text: string): readonly number[] {
  return text === "" ? [] : text.split(":").map((group) => parseInt(group, 16));
}

/** Removes the zone, as in `fe80::1%eth0`. */
function withoutZone(address: string): string {
  return address.replace(/%.*$/, "");
}

function familyOf(address: string): "ipv4" | "ipv6" {
  return isIP(withoutZone(address)) === 4 ? "ipv4" : "ipv6";
}

function addRange(list: BlockList, text: string): void {
  const network = parseNetwork(text);
  if (network === undefined)
    throw new Error(`got ${text}; expected an address or a CIDR`);
  list.addSubnet(network.address, network.prefixBits, network.family);
}

/** Matches labels of a host as repository patterns match path components. */
function compileHostGlob(glob: string): PatternMatcher {
  return compilePattern(hostPath(glob));
}

function hostPath(host: string): string {
  return host.toLowerCase().replace(/\.$/, "").replaceAll(".", "/");
}
