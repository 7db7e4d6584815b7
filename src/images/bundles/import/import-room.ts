import { RegistryError } from "../../../oci/errors.ts";
import type { Reservation, Room } from "../../../retention/room.ts";
import type { StorageSpace } from "../../../storage/storage.ts";

export interface ImportRoomParts {
  /** Undefined: not limited before the disk is full. */
  readonly room: Pick<Room, "reserve"> | undefined;
  /** Returns the limits in bytes; Infinity: unknown. */
  readonly readLimits: () => Promise<RoomBounds>;
}

/** What the storage may hold at most, and holds. */
export interface RoomBounds {
  /** `eviction.maxSize` in bytes. */
  readonly limitBytes: number;
  readonly storedBytes: number;
  /** Space of the file system, without `eviction.minFree`; undefined if the system does not report it. */
  readonly usableBytes: number | undefined;
  readonly space: StorageSpace | undefined;
}

/** Room for one blob. */
export interface BlobPlace {
  readonly onWritten: (bytes: number) => void;
  readonly release: () => void;
}

/** Eviction may take longer than one reservation waits. */
const ATTEMPTS = 5;
/** Headers and padding of an archive, which need no room: a share of it, and at least 1 MiB. */
const OVERHEAD_SHARE = 0.02;
const MIN_OVERHEAD_BYTES = 1024 * 1024;

/** The room of one import: mirrored images are evicted for it, but none of its own. */
export class ImportRoom {
  readonly #parts: ImportRoomParts;

  constructor(parts: ImportRoomParts) {
    this.#parts = parts;
  }

  /**
   * Refuses a bundle that cannot fit, before its first byte is stored and anything is evicted for it.
   *
   * @param archiveBytes undefined if it is compressed, or its size is unknown
   * @throws RegistryError
   */
  async check(archiveBytes: number | undefined): Promise<void> {
    if (archiveBytes === undefined) return;
    const { limitBytes, usableBytes = Infinity } =
      await this.#parts.readLimits();
    const overheadBytes = Math.max(
      archiveBytes * OVERHEAD_SHARE,
      MIN_OVERHEAD_BYTES,
    );
    const mostBytes = Math.min(limitBytes, usableBytes);
    const missingBytes = Math.ceil(archiveBytes - overheadBytes - mostBytes);
    if (missingBytes <= 0) return;
    const which = limitBytes <= usableBytes ? "eviction.maxSize" : "the disk";
    throw noRoom(
      `got a bundle of ${archiveBytes} bytes; ${which} allows ${mostBytes}: ${missingBytes} more are needed`,
    );
  }

  /**
   * Reserves room for one blob, evicting mirrored images that were pulled longest ago.
   *
   * @throws RegistryError if there is none, with how much is missing
   */
  async reserve(sizeBytes: number, name: string): Promise<BlobPlace> {
    let writtenBytes = 0;
    const { room } = this.#parts;
    let reservation: Reservation | undefined;
    if (room !== undefined) {
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        reservation = await room.reserve(
          sizeBytes,
          () => sizeBytes - writtenBytes,
        );
        if (reservation !== undefined) break;
      }
      if (reservation === undefined) throw await this.#full(sizeBytes, name);
    }
    return {
      onWritten: (bytes) => {
        writtenBytes = bytes;
      },
      release: () => reservation?.release(),
    };
  }

  async #full(sizeBytes: number, name: string): Promise<RegistryError> {
    const { limitBytes, storedBytes, usableBytes, space } =
      await this.#parts.readLimits();
    const overSize = storedBytes + sizeBytes - limitBytes;
    const overDisk =
      space === undefined || usableBytes === undefined
        ? 0
        : sizeBytes - space.freeBytes + (space.totalBytes - usableBytes);
    const missingBytes = Math.max(overSize, overDisk, 1);
    const which = overSize >= overDisk ? "eviction.maxSize" : "the disk";
    return noRoom(
      `member ${name} needs ${sizeBytes} bytes: at least ${missingBytes} more are needed (${which}), ` +
        "and nothing else can be evicted",
    );
  }
}

function noRoom(detail: string): RegistryError {
  return new RegistryError("UNAVAILABLE", {
    status: 507,
    message: "the storage has no room for the bundle",
    detail,
  });
}
