import type { RootRow } from "../storage/root-index.ts";
import type { StorageSpace } from "../storage/storage.ts";

/** Bytes, or a share of the file system as in 0.8. */
export type Amount = { readonly bytes: number } | { readonly share: number };

export interface RoomLimits {
  readonly maxSize: Amount;
  readonly minFree: Amount;
  /** Infinity: never. */
  readonly maxIdleMs: number;
  /** Whether a pattern of `eviction.keep` protects the root. */
  readonly isKept: (root: RootRow) => boolean;
}

/**
 * Returns an amount in bytes.
 *
 * @param unknown the result for a share of a file system of unknown size
 */
export function amountOf(
  amount: Amount,
  space: StorageSpace | undefined,
  unknown: number,
): number {
  if ("bytes" in amount) return amount.bytes;
  return space === undefined
    ? unknown
    : Math.floor(space.totalBytes * amount.share);
}
