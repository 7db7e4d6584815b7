import type { Digest } from "../../oci/digest.ts";
import type { BlobFill } from "./blob-fill.ts";
import type { FillHead } from "./fill-download.ts";
import type { FillReader } from "./fill-reader.ts";
import type { Release } from "../../wire/semaphore.ts";
import type { SlotRequest } from "./fill-slots.ts";
import type { FillPlace } from "./fill-storages.ts";
import type { MirroredUpstream } from "../mirrored-upstream.ts";
import type { RepositoryKey } from "../../oci/reference.ts";

/** A reader of a fill, and the state of the blob. */
export interface JoinedFill {
  readonly body: FillReader;
  /** Rejects with an UpstreamError if the upstream sent no body, a RegistryError if the wait for a slot took too long. */
  readonly head: Promise<FillHead>;
  readonly isStored: boolean;
  readonly receivedBytes: number;
  /** Waits until the digest is verified. @throws the failure of the fill */
  verifiedSize(): Promise<number>;
}

/**
 * The end of a fill that was followed.
 *
 * - `gave-way`: another fill needed its slot; the received bytes are kept, and it may be started again
 * - `refused`: the upstream did not accept the kept bytes, which are gone; it may be started again
 */
export type FollowedEnd = "ended" | "gave-way" | "refused";

/** A fill as its users see it; it may still wait for its slot and its storage. */
export interface Fill {
  readonly digest: Digest;
  /** The source of the bytes. */
  readonly key: RepositoryKey;
  /** Resolves when the blob is stored or the fill has failed, and another fill may be started. */
  readonly ended: Promise<void>;
  /**
   * Opens a reader.
   *
   * @param patienceMs how long the client waits for the head of a fill that waits for its slot
   * @returns undefined if the fill has ended: the blob is stored, or the fill has failed
   * @throws RegistryError UNAVAILABLE if the fill waits longer for its slot
   */
  openReader(patienceMs: number): Promise<JoinedFill | undefined>;
  /**
   * Waits for the end without a reader, so that the fill gives way to those of clients, and keeps its
   * place among those that wait for a slot.
   *
   * @throws UpstreamError, RegistryError
   */
  follow(): Promise<FollowedEnd>;
  /**
   * Takes a slot for a range that is requested from the upstream while the fill runs.
   *
   * @returns undefined if enough ranges run, or the upstream's slots are all held
   */
  takeSideRange(): Release | undefined;
}

/** The progress of a fill for the operator. */
export interface FillProgress {
  readonly key: RepositoryKey;
  readonly digest: Digest;
  readonly receivedBytes: number;
  readonly sizeBytes: number | undefined;
  /** Clients that read it or are about to. */
  readonly clients: number;
}

/** A fill with the state that `Fills` keeps of it. */
export interface RunningFill extends Fill, FillPlace, SlotRequest {
  readonly client: MirroredUpstream["client"];
  /** The label of the upstream in metrics. */
  readonly metricLabel: string;
  readonly opened: Promise<BlobFill>;
  /** Set once {@link opened} has resolved. */
  blob: BlobFill | undefined;
  /** Releases the slot that the fill holds. */
  release: Release | undefined;
  isQueued: boolean;
  /** True while the fill waits for room that other fills must free; it cannot be stopped meanwhile. */
  isReserving: boolean;
  /** Readers that are not open yet. */
  waiting: number;
  sideRanges: number;
  /** Callers of {@link Fill.follow}. */
  followers: number;
  /** True if it was stopped because another fill needed its slot. */
  hasGivenWay: boolean;
}

/** True if a client reads the fill, or is about to. */
export function isRead(fill: RunningFill): boolean {
  return fill.waiting > 0 || fill.blob?.hasReaders === true;
}
