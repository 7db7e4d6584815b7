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

/** Why the storage is avoided for a while after it failed: a full disk is not asked for each blob. */
const STORAGE_REST_MS = 5_000;

/** Room that a blob of unknown size must find ahead of it. */
const UNKNOWN_SIZE_BYTES = 16 * 1024 * 1024;

/** Fills without readers that are stopped for the room of one that has some. */
const MAX_STOPPED = 8;

const RESERVE = "reserve";

export interface FillStoragesOptions {
  readonly store: BlobStore;
  readonly index: Pick<BlobRecords, "getBlob">;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Absent: every fill has room until the disk says otherwise. */
  readonly room: Pick<Room, "reserve" | "isShort"> | undefined;
  /** No other upstream can have brought what lies in the storage. */
  isSoleUpstream(): boolean;
  /** Ends a fill without readers and resolves when its room is free. @returns false where there is none */
  stopUnread(): Promise<boolean>;
}

/** One fill's place in the storage. */
export interface FillPlace {
  readonly digest: Digest;
  readonly upstream: string;
  /** Position after the last byte that is stored. */
  storedEnd(): number;
  reservation: Reservation | undefined;
}

/** Where the bytes of fills go: a partial file where there is room and the storage takes writes. */
export class FillStorages {
  readonly #options: FillStoragesOptions;
  #restsUntilMs = -Infinity;

  constructor(options: FillStoragesOptions) {
    this.#options = options;
  }

  /**
   * Opens the storage of a fill.
   *
   * @param expectedBytes what a descriptor says; absent: {@link reserve} is due when the upstream has
   *   said it
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
   * Reserves room for a fill that has none yet, before its head is sent. Nothing is evicted for a size
   * that only the upstream says: the evictor follows once the blob is stored.
   *
   * @param sizeBytes what the upstream says; undefined: nothing
   * @throws StorageError where there is none
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

  /** The storage failed, or has no room: it is shown, and after a failure avoided for a while. */
  onFault(error: unknown): void {
    const { clock, log, metrics } = this.#options;
    const hasNoRoom =
      error instanceof StorageError && error.operation === RESERVE;
    if (!hasNoRoom) {
      this.#restsUntilMs = clock.monotonicMs() + STORAGE_REST_MS;
    }
    metrics.storageDegraded.set(1);
    log.warn(
      { err: error },
      "the storage takes no writes: downloads are passed through",
    );
  }

  onStored(): void {
    const { metrics, room } = this.#options;
    if (room?.isShort !== true) metrics.storageDegraded.set(0);
  }

  /** @returns false when there is no room for all of it: then none of it is stored */
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
   * Bytes that lie in the storage and that no row names are of an upstream that is not known: a fill
   * starts from them only where there is no other.
   */
  async #mayAdopt(digest: Digest): Promise<boolean> {
    return (
      this.#options.isSoleUpstream() &&
      (await isInIndex(this.#options.index, digest)) === false
    );
  }
}
