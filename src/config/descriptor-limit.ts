import { readFile } from "node:fs/promises";
import { totalmem } from "node:os";

/** Used if the system reports no limit: the default of a Linux process. */
const FALLBACK = 1_024;

/** More than a mirror on one machine can use. */
const MAX_CONNECTIONS = 16_384;

/** For the mirror itself: index, log, listeners, idle connections to upstreams. */
const OWN_DESCRIPTORS = 64;
/** A download has a partial file and a connection to its upstream. */
const DESCRIPTORS_PER_FILL = 2;
/** The memory of one download with its client, among a thousand: about 400 KB were measured. */
const MEMORY_PER_FILL_BYTES = 512 * 1024;
/** The share of the memory for all downloads together. */
const FILL_MEMORY_PART = 1 / 4;
const MIN_FILLS = 4;
const MAX_FILLS = 4_096;

/** An upload has a file and the connection of its client. */
const DESCRIPTORS_PER_UPLOAD = 2;
/** The memory of one upload that receives bytes: those that wait for the disk, and those being written. */
const MEMORY_PER_UPLOAD_BYTES = 1024 * 1024;
/** The share of the memory for all uploads together. */
const UPLOAD_MEMORY_PART = 1 / 4;
const MIN_UPLOADS = 4;
const MAX_UPLOADS = 4_096;

/** Returns the number of files that this process may have open; Node.js raises it to the hard limit at start. */
export async function readDescriptorLimit(): Promise<number> {
  const text = await readFile("/proc/self/limits", "utf8").catch(() => "");
  const [, soft] = /^Max open files\s+(\d+|unlimited)/m.exec(text) ?? [];
  if (soft === "unlimited") return Infinity;
  return soft === undefined ? FALLBACK : Number(soft);
}

/** Returns the memory of the machine, or of the control group if that is less. */
export function readMemoryLimit(): number {
  const constrained = process.constrainedMemory();
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}

/**
 * Returns the effective `limits.fills`. 0 means as many downloads as the descriptors not reserved for
 * clients and a quarter of the memory allow. The limit protects the process; normal load does not
 * reach it.
 *
 * @param written 0: derived
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
 * Returns the effective `limits.uploads`. 0 means as many open uploads as a quarter of the
 * descriptors and of the memory allow.
 *
 * @param written 0: derived
 */
export function resolveUploadLimit(
  written: number,
  process: { readonly descriptors: number; readonly memoryBytes: number },
): number {
  const byDescriptors = process.descriptors / 4 / DESCRIPTORS_PER_UPLOAD;
  const byMemory =
    (process.memoryBytes * UPLOAD_MEMORY_PART) / MEMORY_PER_UPLOAD_BYTES;
  return (
    written ||
    Math.max(
      MIN_UPLOADS,
      Math.floor(Math.min(MAX_UPLOADS, byDescriptors, byMemory)),
    )
  );
}

/**
 * Returns the effective limits of connections. 0 means half of the descriptors for clients (the others
 * are for blobs and upstreams), and half of that for one address.
 *
 * @param written 0: derived
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
