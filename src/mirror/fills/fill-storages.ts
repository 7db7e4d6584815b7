import type { BlobStore } from "../../storage/blob-store.ts";
import { StorageError } from "../../storage/blob-store.ts";
import type { BlobRecords } from "../../storage/blob-index.ts";
import type { Reservation, Room } from "../../retention/room.ts";
import { type Digest, digestAlgorithm } from "../../oci/digest.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import type { FillStorage } from "./fill-bytes.ts";
import { isInIndex } from "./fill-publication.ts";

/** How long the storage is not used after it failed, so that a full disk is not tried for each blob. */
const STORAGE_REST_MS = 5_000;

/** The room that is reserved for a blob of unknown size. */
const UNKNOWN_SIZE_BYTES = 16 * 1024 * 1024;

/** Bound of the fills without readers that are stopped to make room for one fill. */
const MAX_STOPPED = 8;

/** Content that cannot be evicted may fill the storage for good: every fill then finds no room. */
const NO_ROOM_LOGGED_EVERY_MS = 60_000;

const RESERVE = "reserve";

export interface FillStoragesOptions {
  readonly store: BlobStore;
  readonly index: Pick<BlobRecords, "getBlob">;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Absent: the room is not limited before the disk is full. */
  readonly room?: Pick<Room, "reserve" | "isShort"> | undefined;
  /** Returns true if stored bytes without a row can only be from the one upstream. May change at any time. */
  isSoleUpstream(): boolean;
  /** Ends a fill without readers and resolves when its room is free. @returns false if there is none */
  stopUnread(): Promise<boolean>;
}

/** The storage side of one fill. */
export interface FillPlace {
  readonly digest: Digest;
  readonly upstream: string;
  /** Returns the position after the last stored byte. */
  storedEnd(): number;
  reservation: Reservation | undefined;
}

/** Opens the storages of fills: a partial file if there is room and the storage accepts writes. */
export class FillStorages {
  readonly #options: FillStoragesOptions;
  #restsUntilMs = -Infinity;
  #noRoomLoggedAtMs = -Infinity;

  constructor(options: FillStoragesOptions) {
    this.#options = options;
  }

  /**
   * Opens the storage of a fill.
   *
   * @param expectedBytes the size in a descriptor; undefined: {@link reserve} must be called when the
   *   upstream has stated the size
   */
  async open(
    place: FillPlace,
    expectedBytes: number | undefined,
  ): Promise<FillStorage> {
    const { store, clock } = this.#options;
    const { digest, upstream } = place;
    if (
      clock.monotonicMs() >= this.#restsUntilMs &&
      (expectedBytes === undefined ||
        (await this.#hasReserved(place, expectedBytes, true)))
    ) {
      try {
        const writer = await store.beginWrite({
          kind: "fill",
          digest,
          expectedBytes,
          source: { upstream, mayAdopt: await this.#mayAdopt(digest) },
        });
        return { kind: "writer", writer };
      } catch (error) {
        this.onFault(error);
      }
    }
    return {
      kind: "none",
      hash: store.createHash(digestAlgorithm(digest), expectedBytes),
      offset: 0,
    };
  }

  /**
   * Reserves room for a fill without a reservation, before its head is sent. Nothing is evicted for a
   * size that only the upstream states; the evictor runs once the blob is stored.
   *
   * @param sizeBytes the size that the upstream states; undefined: unknown
   * @throws StorageError if there is no room
   */
  async reserve(
    place: FillPlace,
    sizeBytes: number | undefined,
  ): Promise<void> {
    if (place.reservation !== undefined) return;
    if (!(await this.#hasReserved(place, sizeBytes, false))) {
      throw new StorageError(RESERVE, "ENOSPC");
    }
  }

  /** Reports that the storage failed or has no room; after a failure it is not used for a while. */
  onFault(error: unknown): void {
    const { clock, log, metrics } = this.#options;
    const hasNoRoom =
      error instanceof StorageError && error.operation === RESERVE;
    const nowMs = clock.monotonicMs();
    metrics.storageDegraded.set(1);
    if (!hasNoRoom) {
      this.#restsUntilMs = nowMs + STORAGE_REST_MS;
    } else if (nowMs - this.#noRoomLoggedAtMs < NO_ROOM_LOGGED_EVERY_MS) {
      return;
    } else {
      this.#noRoomLoggedAtMs = nowMs;
    }
    log.warn(
      { err: error },
      "the storage accepts no writes; downloads are passed through",
    );
  }

  onStored(): void {
    const { metrics, room } = this.#options;
    if (room?.isShort !== true) metrics.storageDegraded.set(0);
  }

  /** Reserves room; false if there is none for the whole blob, which is not stored then. */
  async #hasReserved(
    place: FillPlace,
    sizeBytes: number | undefined,
    mayEvict: boolean,
  ): Promise<boolean> {
    const { room } = this.#options;
    if (room === undefined) return true;
    const remaining = (): number =>
      sizeBytes === undefined
        ? UNKNOWN_SIZE_BYTES
        : sizeBytes - place.storedEnd();
    for (let stopped = 0; ; stopped++) {
      place.reservation = await room.reserve(
        sizeBytes ?? UNKNOWN_SIZE_BYTES,
        remaining,
        mayEvict,
      );
      if (place.reservation !== undefined) return true;
      if (stopped === MAX_STOPPED || !(await this.#options.stopUnread())) break;
    }
    this.onFault(new StorageError(RESERVE, "ENOSPC"));
    return false;
  }

  /**
   * The upstream of stored bytes without a row is unknown: a fill continues them only if no other
   * upstream exists.
   */
  async #mayAdopt(digest: Digest): Promise<boolean> {
    return (
      this.#options.isSoleUpstream() &&
      (await isInIndex(this.#options.index, digest)) === false
    );
  }
}
