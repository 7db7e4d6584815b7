import { setTimeout as delay } from "node:timers/promises";
import type { Evictor } from "./evictor.ts";
import type { StorageSpace } from "../storage/storage.ts";

/** Bytes that are reserved for a fill until it has ended. */
export interface Reservation {
  release(): void;
}

export interface RoomOptions {
  readonly evictor: Pick<Evictor, "makeRoom">;
  /** Returns undefined if the system does not report it. */
  readonly readSpace: () => Promise<StorageSpace | undefined>;
  /** Returns the bytes of `eviction.minFree`. */
  readonly minFreeBytes?: (space: StorageSpace) => number;
  /**
   * Returns whether the disk is so full that the reserve of the index is used up. The rest is for
   * deletions. Absent: never.
   */
  readonly isOutOfRoom?: () => boolean;
}

/** The time a pull waits for eviction; then the free space decides. */
const PATIENCE_MS = 1_000;

/**
 * Reserves space for fills. A fill starts only if all of it fits in addition to what the running fills
 * still expect, so that ten half-finished fills do not fill the disk.
 */
export class Room {
  readonly #options: RoomOptions;
  readonly #reserved = new Set<() => number>();
  /**
   * Reserves room for uploads. Mirrored images are evicted for them as for fills. `maxSize` alone does
   * not refuse them: hosted content is never evicted, and may be all that is stored.
   */
  readonly uploads: Pick<Room, "reserve"> = {
    reserve: (bytes, remainingBytes) =>
      this.#reserve(bytes, remainingBytes, async (neededBytes) => {
        const isFitting = await this.#makeRoom(neededBytes);
        if (this.#options.isOutOfRoom?.() === true) return false;
        return isFitting === true || (await this.#isAboveMinFree(neededBytes));
      }),
  };
  #isShort = false;

  constructor(options: RoomOptions) {
    this.#options = options;
  }

  /** Whether the last reservation was refused. */
  get isShort(): boolean {
    return this.#isShort;
  }

  /**
   * Reserves room, evicting images if necessary.
   *
   * @param remainingBytes returns what the fill still expects; called for each later reservation
   * @param mayEvict if false, only space that is free now counts, and nothing is evicted
   * @returns undefined if there is not enough room
   */
  reserve(
    bytes: number,
    remainingBytes: () => number,
    mayEvict = true,
  ): Promise<Reservation | undefined> {
    return this.#reserve(bytes, remainingBytes, (neededBytes) =>
      mayEvict ? this.#hasRoom(neededBytes) : this.#isFree(neededBytes),
    );
  }

  async #reserve(
    bytes: number,
    remainingBytes: () => number,
    isThere: (neededBytes: number) => Promise<boolean>,
  ): Promise<Reservation | undefined> {
    let reservedBytes = 0;
    for (const remaining of this.#reserved)
      reservedBytes += Math.max(0, remaining());
    // Added before the wait, so that concurrent reservations count it.
    this.#reserved.add(remainingBytes);
    const release = (): void => {
      this.#reserved.delete(remainingBytes);
    };
    this.#isShort = !(await isThere(reservedBytes + bytes));
    if (!this.#isShort) return { release };
    release();
    return undefined;
  }

  async #hasRoom(bytes: number): Promise<boolean> {
    return (await this.#makeRoom(bytes)) ?? this.#isFree(bytes);
  }

  /** @returns undefined if the eviction takes longer than a client waits, or failed */
  async #makeRoom(bytes: number): Promise<boolean | undefined> {
    const { evictor } = this.#options;
    const end = new AbortController();
    const hasRoom = await Promise.race([
      evictor.makeRoom(bytes).catch(() => undefined),
      delay(PATIENCE_MS, undefined, { signal: end.signal, ref: false }).catch(
        () => undefined,
      ),
    ]);
    end.abort();
    return hasRoom;
  }

  async #isAboveMinFree(bytes: number): Promise<boolean> {
    const { readSpace, minFreeBytes } = this.#options;
    const space = await readSpace();
    if (space === undefined) return true;
    return space.freeBytes - bytes > (minFreeBytes?.(space) ?? 0);
  }

  async #isFree(bytes: number): Promise<boolean> {
    const space = await this.#options.readSpace();
    return space === undefined || space.freeBytes > bytes;
  }
}
