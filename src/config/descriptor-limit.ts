import { readFile } from "node:fs/promises";

/** Where the system tells no limit: what Linux gives a process that did not ask for more. */
const FALLBACK = 1_024;

/** More than a mirror of one machine has any use for. */
const MAX_CONNECTIONS = 16_384;

/** How many files this process may have open at once; Node.js has raised it as far as it may at its start. */
export async function readDescriptorLimit(): Promise<number> {
  const text = await readFile("/proc/self/limits", "utf8").catch(() => "");
  const [, soft] = /^Max open files\s+(\d+|unlimited)/m.exec(text) ?? [];
  if (soft === "unlimited") return Infinity;
  return soft === undefined ? FALLBACK : Number(soft);
}

/**
 * What `limits` means where it says 0: half of the descriptors are for clients, the others for
 * blobs and upstreams, and one address may have half of that.
 *
 * @param written 0: not written
 */
export function resolveConnectionLimits(
  written: {
    readonly connections: number;
    readonly connectionsPerAddress: number;
  },
  descriptorLimit: number,
): { readonly connections: number; readonly connectionsPerAddress: number } {
  const connections =
    written.connections ||
    Math.max(2, Math.min(MAX_CONNECTIONS, Math.floor(descriptorLimit / 2)));
  return {
    connections,
    connectionsPerAddress:
      written.connectionsPerAddress || Math.ceil(connections / 2),
  };
}
