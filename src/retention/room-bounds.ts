import { type IndexState, storedBytes } from "../storage/metadata-index.ts";
import type { StorageSpace } from "../storage/storage.ts";
import { amountOf, type RoomLimits } from "./room-limits.ts";

/** What the cache holds, and may hold at most. */
export interface RoomBounds {
  readonly storedBytes: number;
  /** `eviction.maxSize` in bytes; Infinity: unknown. */
  readonly maxSizeBytes: number;
  /** Stored bytes and free space, without `eviction.minFree`; Infinity: unknown. */
  readonly diskBytes: number;
}

/** Reads how much room the cache has. @throws IndexError */
export async function readRoomBounds({
  index,
  limits,
  readSpace,
}: {
  readonly index: Pick<IndexState, "totals">;
  readonly limits: Pick<RoomLimits, "maxSize" | "minFree">;
  /** Returns undefined if the system does not report it. */
  readonly readSpace: () => Promise<StorageSpace | undefined>;
}): Promise<RoomBounds> {
  const [space, totals] = await Promise.all([readSpace(), index.totals()]);
  const stored = storedBytes(totals);
  return {
    storedBytes: stored,
    maxSizeBytes: amountOf(limits.maxSize, space, Infinity),
    diskBytes:
      space === undefined
        ? Infinity
        : stored + space.freeBytes - amountOf(limits.minFree, space, 0),
  };
}
