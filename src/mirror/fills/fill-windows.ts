/** Memory for the newest bytes of all fills together, shared out between those that run. */
const ALL_WINDOWS_BYTES = 64 * 1024 * 1024;
/** Twice what is written at once: one half is collected while the other is written. */
const MAX_WINDOW_BYTES = 4 * 1024 * 1024;
const MIN_WINDOW_BYTES = 64 * 1024;

/**
 * Returns the window of each of so many fills: a power of two, so that the steps of writing stay
 * aligned when it shrinks in the middle of a fill, and so that it seldom changes.
 */
export function windowBytesFor(fills: number): number {
  const share = ALL_WINDOWS_BYTES / Math.max(1, fills);
  return Math.max(
    MIN_WINDOW_BYTES,
    Math.min(MAX_WINDOW_BYTES, 2 ** Math.floor(Math.log2(share))),
  );
}
