import { BlockList, isIP } from "node:net";
import type { ProxyConfig } from "../config/config.ts";
import { parseNetwork } from "../config/schema/forms.ts";
import { withoutBrackets } from "./url-host.ts";

/**
 * Returns the URL of the forward proxy for a request, which may hold a password; undefined for none.
 * NO_PROXY has the syntax of curl and Go: `*`, names with their subdomains, `.name` and `*.name` for
 * subdomains only, addresses and CIDRs, each with or without a port.
 */
export function chooseProxyFor(
  url: URL,
  { https, http, noProxy }: ProxyConfig,
): string | undefined {
  const proxy = url.protocol === "https:" ? https : http;
  if (proxy === undefined) return undefined;
  const host = withoutBrackets(url.hostname).replace(/\.$/, "");
  const port = url.port || (url.protocol === "https:" ? "443" : "80");
  return noProxy.some((entry) => covers(entry, host, port))
    ? undefined
    : proxy.reveal();
}

function covers(entry: string, host: string, port: string): boolean {
  const [, name = "", wantedPort] =
    /^(\[[^\]]*\]|[^:]*|.*:.*:.*?)(?::(\d+))?$/.exec(entry) ?? [];
  if (wantedPort !== undefined && wantedPort !== port) return false;
  const plain = withoutBrackets(name).replace(/\.$/, "");
  if (plain === "*") return true;
  if (isIP(host) !== 0) return coversAddress(plain, host);
  if (/^\*?\./.test(plain)) return host.endsWith(plain.replace(/^\*/, ""));
  return host === plain || (plain !== "" && host.endsWith(`.${plain}`));
}

function coversAddress(entry: string, address: string): boolean {
  const network = parseNetwork(entry);
  if (network === undefined) return false;
  const list = new BlockList();
  list.addSubnet(network.address, network.prefixBits, network.family);
  return list.check(address, isIP(address) === 4 ? "ipv4" : "ipv6");
}
