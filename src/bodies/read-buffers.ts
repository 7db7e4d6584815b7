/**
 * The size of one read of a blob. 256 KiB stays in the second-level cache and is reused, which was
 * better than streams and than smaller and larger buffers in throughput, CPU and memory.
 */
export const READ_BYTES = 256 * 1024;

/** The buffer of a reader while many readers are active, so that their sum stays small. */
const CROWDED_READ_BYTES = 64 * 1024;

/** Readers that may have a large buffer. */
const MAX_LARGE = 32;

/** Large buffers that are not in use; small ones are garbage-collected. */
const idle: Buffer[] = [];
let largeInUse = 0;

/**
 * Returns a buffer for one reader, with arbitrary content.
 *
 * @param wantedBytes the number of bytes that the reader will read in total
 */
export function takeReadBuffer(wantedBytes: number): Buffer {
  // A small blob gets a buffer of its size: it is read once and never refilled.
  if (wantedBytes <= CROWDED_READ_BYTES) return Buffer.allocUnsafe(wantedBytes);
  if (largeInUse >= MAX_LARGE)
    return Buffer.allocUnsafeSlow(CROWDED_READ_BYTES);
  largeInUse++;
  return idle.pop() ?? Buffer.allocUnsafeSlow(READ_BYTES);
}

/** Returns a buffer to the pool. The caller must not use it, or a view of it, afterwards. */
export function returnReadBuffer(buffer: Buffer): void {
  if (buffer.length !== READ_BYTES) return;
  largeInUse--;
  idle.push(buffer);
}
