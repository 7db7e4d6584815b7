import type { Reservation, Room } from "../../retention/room.ts";
import { noSpace } from "./upload-refusal.ts";

/** Room for a body of unknown size is reserved in steps, which grow with the upload. */
const MIN_STEP_BYTES = 1024 * 1024;
const MAX_STEP_BYTES = 64 * 1024 * 1024;

/** Each attempt waits a second for the eviction of mirrored images, if there is anything to evict. */
const ATTEMPTS = 5;

/** The room of one request: mirrored images are evicted for its bytes before they are stored. */
export class UploadSpace {
  readonly #room: Pick<Room, "reserve"> | undefined;
  #reservation: Reservation | undefined;
  #reservedBytes = 0;
  #receivedBytes = 0;

  /** @param room absent: not limited before the disk is full */
  constructor(room: Pick<Room, "reserve"> | undefined) {
    this.#room = room;
  }

  /**
   * Reserves room for a body before its first byte.
   *
   * @param lengthBytes undefined: unknown
   * @throws RegistryError if there is no room
   */
  begin(lengthBytes: number | undefined): Promise<void> {
    return this.#reserve(lengthBytes ?? MIN_STEP_BYTES);
  }

  /** Called before `bytes` are stored. @throws RegistryError if there is no room for them */
  async admit(bytes: number): Promise<void> {
    const end = this.#receivedBytes + bytes;
    if (end > this.#reservedBytes) {
      await this.#reserve(end + Math.min(MAX_STEP_BYTES, end));
    }
    this.#receivedBytes = end;
  }

  end(): void {
    this.#reservation?.release();
    this.#reservation = undefined;
  }

  async #reserve(totalBytes: number): Promise<void> {
    if (this.#room === undefined || totalBytes === 0) return;
    this.end();
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      this.#reservation = await this.#room.reserve(
        totalBytes - this.#receivedBytes,
        () => totalBytes - this.#receivedBytes,
      );
      if (this.#reservation !== undefined) {
        this.#reservedBytes = totalBytes;
        return;
      }
    }
    throw noSpace();
  }
}
