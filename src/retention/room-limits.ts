import type { RootRow } from "../storage/root-index.ts";

/** Bytes, or a share of the file system as in 0.8. */
export type Amount = { readonly bytes: number } | { readonly share: number };

export interface RoomLimits {
  readonly maxSize: Amount;
  readonly minFree: Amount;
  /** Infinity: never. */
  readonly maxIdleMs: number;
  /** Whether the root is covered by a pattern of those that never go. */
  readonly isKept: (root: RootRow) => boolean;
}

export interface Space {
  readonly totalBytes: number;
  readonly freeBytes: number;
}

/** @param unknown for a share of a file system that does not tell its size */
export function amountOf(
  amount: Amount,
  space: Space | undefined,
  unknown: number,
): number {
  if ("bytes" in amount) return amount.bytes;
  return space === undefined
    ? unknown
    : Math.floor(space.totalBytes * amount.share);
}
