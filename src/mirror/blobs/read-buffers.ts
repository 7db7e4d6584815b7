/**
 * One read's worth of a blob: 256 KiB stays in the second-level cache and is reused, which beat
 * streams, smaller and larger buffers in throughput, CPU and memory at once.
 */
export const READ_BYTES = 256 * 1024;

/** What a reader gets when many read at once: the sum stays near that of a few. */
const CROWDED_READ_BYTES = 64 * 1024;

/** How many readers may have a large buffer. */
const MAX_LARGE = 32;

/** Smaller ones are left to the collector; more large ones than this never exist. */
const idle: Buffer[] = [];
let largeInUse = 0;

/**
 * A buffer for one reader; it holds old bytes.
 *
 * @param wantedBytes what the reader will read in all
 */
export function takeReadBuffer(wantedBytes: number): Buffer {
  // A small blob gets a buffer of its size: it is read once and never refilled.
  if (wantedBytes <= CROWDED_READ_BYTES) return Buffer.allocUnsafe(wantedBytes);
  if (largeInUse >= MAX_LARGE)
    return Buffer.allocUnsafeSlow(CROWDED_READ_BYTES);
  largeInUse++;
  return idle.pop() ?? Buffer.allocUnsafeSlow(READ_BYTES);
}

/** The caller has no view of it left. */
export function giveReadBuffer(buffer: Buffer): void {
  if (buffer.length !== READ_BYTES) return;
  largeInUse--;
  idle.push(buffer);
}
