import { readFile } from "node:fs/promises";
import { totalmem } from "node:os";

/** Where the system tells no limit: what Linux gives a process that did not ask for more. */
const FALLBACK = 1_024;

/** More than a mirror of one machine has any use for. */
const MAX_CONNECTIONS = 16_384;

/** The mirror's own: index, log, listeners, idle connections to upstreams. */
const OWN_DESCRIPTORS = 64;
/** A download has a partial file and a connection to its upstream. */
const DESCRIPTORS_PER_FILL = 2;
/** What a download costs where a thousand run, with its client: some 400 KB were measured. */
const MEMORY_PER_FILL_BYTES = 512 * 1024;
/** The part of the memory that downloads may take together. */
const FILL_MEMORY_PART = 1 / 4;
const MIN_FILLS = 4;
const MAX_FILLS = 4_096;

/** How many files this process may have open at once; Node.js has raised it as far as it may at its start. */
export async function readDescriptorLimit(): Promise<number> {
  const text = await readFile("/proc/self/limits", "utf8").catch(() => "");
  const [, soft] = /^Max open files\s+(\d+|unlimited)/m.exec(text) ?? [];
  if (soft === "unlimited") return Infinity;
  return soft === undefined ? FALLBACK : Number(soft);
}

/** Memory that this process may use: that of the machine, or of its control group where that is less. */
export function readMemoryLimit(): number {
  const constrained = process.constrainedMemory();
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}

/**
 * Returns what `limits.fills` means where it says 0: as many downloads as the descriptors that clients
 * leave and a quarter of the memory carry. The bound protects the process; a busy registry does not
 * reach it.
 *
 * @param written 0: not written
 */
export function resolveFillLimit(
  written: number,
  process: { readonly descriptors: number; readonly memoryBytes: number },
): number {
  const byDescriptors =
    (process.descriptors / 2 - OWN_DESCRIPTORS) / DESCRIPTORS_PER_FILL;
  const byMemory =
    (process.memoryBytes * FILL_MEMORY_PART) / MEMORY_PER_FILL_BYTES;
  return (
    written ||
    Math.max(
      MIN_FILLS,
      Math.floor(Math.min(MAX_FILLS, byDescriptors, byMemory)),
    )
  );
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
