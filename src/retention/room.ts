import { setTimeout as delay } from "node:timers/promises";
import type { Evictor } from "./evictor.ts";
import type { Space } from "./room-limits.ts";

/** Bytes that are promised to a fill until it has ended. */
export interface Reservation {
  release(): void;
}

export interface RoomOptions {
  readonly evictor: Pick<Evictor, "makeRoom">;
  /** Undefined where the system does not tell. */
  readonly readSpace: () => Promise<Space | undefined>;
}

/** A pull waits so long for room; then it is judged by what is free. */
const PATIENCE_MS = 1_000;

/**
 * Who may store how much: a fill is begun only when all of it has room beside what the other fills
 * still expect, so that a disk is not filled by ten halves.
 */
export class Room {
  readonly #options: RoomOptions;
  readonly #reserved = new Set<() => number>();
  #isShort = false;

  constructor(options: RoomOptions) {
    this.#options = options;
  }

  /** The last that asked was refused. */
  get isShort(): boolean {
    return this.#isShort;
  }

  /**
   * Promises room, made by eviction where need be.
   *
   * @param remainingBytes what is still to come of it; read whenever somebody else asks
   * @param mayEvict false: only what is free now counts, and nothing goes for it
   * @returns undefined when there is none
   */
  async reserve(
    bytes: number,
    remainingBytes: () => number,
    mayEvict = true,
  ): Promise<Reservation | undefined> {
    let promised = 0;
    for (const remaining of this.#reserved)
      promised += Math.max(0, remaining());
    // Counted from here on: who asks meanwhile is told of it.
    this.#reserved.add(remainingBytes);
    const release = (): void => {
      this.#reserved.delete(remainingBytes);
    };
    const wanted = promised + bytes;
    this.#isShort = !(await (mayEvict
      ? this.#hasRoom(wanted)
      : this.#isFree(wanted)));
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
