/**
 * One read's worth of a blob: 256 KiB stays in the second-level cache and is reused, which beat
 * streams, smaller and larger buffers in throughput, CPU and memory at once.
 */
export const READ_BYTES = 256 * 1024;

/** Kept for the next reader; more than this is left to the collector. */
const MAX_IDLE = 64;

const idle: Buffer[] = [];

/** A buffer of at least the bytes asked for, at most {@link READ_BYTES}; it holds old bytes. */
export function takeReadBuffer(wantedBytes: number): Buffer {
  // A small blob gets a buffer of its size: it is read once and never refilled.
  if (wantedBytes <= READ_BYTES / 4) return Buffer.allocUnsafe(wantedBytes);
  return idle.pop() ?? Buffer.allocUnsafeSlow(READ_BYTES);
}

/** The caller has no view of it left. */
export function giveReadBuffer(buffer: Buffer): void {
  if (buffer.length === READ_BYTES && idle.length < MAX_IDLE) idle.push(buffer);
}
