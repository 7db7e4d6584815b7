import { RegistryError } from "../../../oci/errors.ts";
import type { Reservation, Room } from "../../../retention/room.ts";
import type { RoomBounds } from "../../../retention/room-bounds.ts";

export interface ImportRoomParts {
  /** Undefined: not limited before the disk is full. */
  readonly room: Pick<Room, "reserve"> | undefined;
  readonly readBounds: () => Promise<RoomBounds>;
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
    const { maxSizeBytes, diskBytes } = await this.#parts.readBounds();
    const overheadBytes = Math.max(
      archiveBytes * OVERHEAD_SHARE,
      MIN_OVERHEAD_BYTES,
    );
    const mostBytes = Math.min(maxSizeBytes, diskBytes);
    const missingBytes = Math.ceil(archiveBytes - overheadBytes - mostBytes);
    if (missingBytes <= 0) return;
    const which = maxSizeBytes <= diskBytes ? "eviction.maxSize" : "the disk";
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
    const { maxSizeBytes, diskBytes, storedBytes } =
      await this.#parts.readBounds();
    const overSize = storedBytes + sizeBytes - maxSizeBytes;
    const overDisk = storedBytes + sizeBytes - diskBytes;
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
