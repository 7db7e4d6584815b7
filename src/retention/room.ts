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
  async reserve(
    bytes: number,
    remainingBytes: () => number,
    mayEvict = true,
  ): Promise<Reservation | undefined> {
    let reservedBytes = 0;
    for (const remaining of this.#reserved)
      reservedBytes += Math.max(0, remaining());
    // Added before the wait, so that concurrent reservations count it.
    this.#reserved.add(remainingBytes);
    const release = (): void => {
      this.#reserved.delete(remainingBytes);
    };
    const neededBytes = reservedBytes + bytes;
    this.#isShort = !(await (mayEvict
      ? this.#hasRoom(neededBytes)
      : this.#isFree(neededBytes)));
    if (!this.#isShort) return { release };
    release();
    return undefined;
  }

  async #hasRoom(bytes: number): Promise<boolean> {
    const { evictor } = this.#options;
    const end = new AbortController();
    const hasRoom = await Promise.race([
      evictor.makeRoom(bytes).catch(() => undefined),
      delay(PATIENCE_MS, undefined, { signal: end.signal, ref: false }).catch(
        () => undefined,
      ),
    ]);
    end.abort();
    return hasRoom ?? this.#isFree(bytes);
  }

  async #isFree(bytes: number): Promise<boolean> {
    const space = await this.#options.readSpace();
    return space === undefined || space.freeBytes > bytes;
  }
}
