import type { Digest } from "../../oci/digest.ts";
import type { BlobFill } from "./blob-fill.ts";
import type { FillHead } from "./fill-download.ts";
import type { FillReader } from "./fill-reader.ts";
import type { Release } from "../../wire/semaphore.ts";
import type { SlotRequest } from "./fill-slots.ts";
import type { FillPlace } from "./fill-storages.ts";
import type { MirroredUpstream } from "../mirrored-upstream.ts";
import type { RepositoryKey } from "../../oci/reference.ts";

/** A reader of a fill, and what is known of the blob. */
export interface JoinedFill {
  readonly body: FillReader;
  /** @throws UpstreamError where the upstream gave no body; RegistryError where the wait for a slot took too long */
  readonly head: Promise<FillHead>;
  readonly isStored: boolean;
  readonly receivedBytes: number;
  /** Waits for the digest. @throws what the fill failed with */
  verifiedSize(): Promise<number>;
}

/** A fill from the moment that it was decided on; it may wait for its slot and its storage. */
export interface Fill {
  readonly digest: Digest;
  /** Where the bytes come from. */
  readonly key: RepositoryKey;
  /** Resolves when the blob is stored, or will not come, and another fill may be started. */
  readonly ended: Promise<void>;
  /**
   * Opens a reader.
   *
   * @param patienceMs how long its client waits for the head, where the fill waits for a slot
   * @returns undefined when it has ended: the blob is stored, or will not come
   * @throws RegistryError UNAVAILABLE where the fill waits for its slot for longer
   */
  openReader(patienceMs: number): Promise<JoinedFill | undefined>;
  /**
   * Allows a range that is served from the upstream beside the fill.
   *
   * @returns its end; undefined where there are enough, or the upstream's slots are all held
   */
  takeSideRange(): Release | undefined;
}

/** A fill as those that run it see it. */
export interface RunningFill extends Fill, FillPlace, SlotRequest {
  readonly client: MirroredUpstream["client"];
  /** What stands for its upstream in metrics. */
  readonly metricLabel: string;
  readonly opened: Promise<BlobFill>;
  /** Set once {@link opened} has resolved. */
  blob: BlobFill | undefined;
  /** Of the slot that it holds. */
  release: Release | undefined;
  isQueued: boolean;
  /** It waits for room that others may have to give: its own end would wait for that. */
  isReserving: boolean;
  /** Readers that were promised and are not open yet. */
  waiting: number;
  sideRanges: number;
}

/** Whether a client reads it, or is about to. */
export function isRead(fill: RunningFill): boolean {
  return fill.waiting > 0 || fill.blob?.hasReaders === true;
}
