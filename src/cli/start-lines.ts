import type { Config, UpstreamConfig } from "../config/config.ts";

/** The addresses that were bound, as `host:port`. */
export interface BoundAddresses {
  readonly listen: readonly string[];
  readonly operator: string | undefined;
}

const MAX_NAMES = 3;

/**
 * Returns the last three lines of a start on a terminal: addresses, mirrored registries, and a command
 * to try.
 */
export function startLines(
  config: Pick<Config, "access" | "offline" | "storage" | "tls" | "upstreams">,
  { listen, operator }: BoundAddresses,
): readonly [string, string, string] {
  const scheme = config.tls === undefined ? "http" : "https";
  const registry = listen.map((address) => `${scheme}://${address}`);
  const api =
    operator === undefined ? "" : `; operator API on http://${operator}`;
  const [first = ""] = listen;
  return [
    `Listening on ${registry.join(", ")}${api}`,
    `Mirroring ${upstreamText(config)}, stored in ${config.storage.root}`,
    `Try: ${commandToTry(config, reachable(first), scheme)}`,
  ];
}

function upstreamText({
  upstreams,
  offline,
}: Pick<Config, "offline" | "upstreams">): string {
  if (upstreams.length === 0) return "no registry";
  const names = upstreams.map(({ name }) => name);
  const shown = names.slice(0, MAX_NAMES).join(", ");
  const more = names.length - MAX_NAMES;
  const text = more > 0 ? `${shown} and ${more} more` : shown;
  return offline ? `${text} (offline)` : text;
}

/** Returns a pull of a public image, if the configuration permits it; otherwise a request to `/v2/`. */
function commandToTry(
  { access, offline, tls, upstreams }: Parameters<typeof startLines>[0],
  address: string,
  scheme: string,
): string {
  const hub = upstreams.find(({ name }) => name === "docker.io");
  const isOpen =
    access?.anonymous !== "none" &&
    (access?.rules.length ?? 0) === 0 &&
    tls?.clientCaFile === undefined;
  return hub !== undefined && isUnrestricted(hub) && isOpen && !offline
    ? `docker pull ${address}/docker.io/library/alpine`
    : `curl ${scheme}://${address}/v2/`;
}

function isUnrestricted({ allow, deny }: UpstreamConfig): boolean {
  return allow.length === 0 && deny.length === 0;
}

/** Replaces a wildcard address by the loopback address. */
function reachable(address: string): string {
  return address.replace(/^(?:0\.0\.0\.0|\[::\])(?=:\d+$)/, "127.0.0.1");
}
