/** Memory of the windows of all running fills together. */
const ALL_WINDOWS_BYTES = 64 * 1024 * 1024;
/** Twice the size of a write: one half is collected while the other is written. */
const MAX_WINDOW_BYTES = 4 * 1024 * 1024;
const MIN_WINDOW_BYTES = 64 * 1024;

/**
 * Returns the window size of each of a number of fills: a power of two, so that writes stay aligned
 * when it shrinks during a fill, and so that it seldom changes.
 */
export function windowBytesFor(fills: number): number {
  const share = ALL_WINDOWS_BYTES / Math.max(1, fills);
  return Math.max(
    MIN_WINDOW_BYTES,
    Math.min(MAX_WINDOW_BYTES, 2 ** Math.floor(Math.log2(share))),
  );
}
