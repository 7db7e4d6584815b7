import type { BlobReader } from "../cache/blob-store.ts";
import { type Body, BrokenBody } from "./body.ts";
import { giveReadBuffer, READ_BYTES, takeReadBuffer } from "./read-buffers.ts";

/** A stored blob, or a range of it, read into one buffer that is used again and again. */
export class StoredBody implements Body {
  readonly #reader: BlobReader;
  #position: number;
  readonly #end: number;
  readonly #onUnreadable: () => void;
  #buffer: Buffer | undefined;
  #isReading = false;
  #isClosed = false;

  /**
   * @param end position after the last byte
   * @param onUnreadable the bytes are there and can't be read
   */
  constructor(
    reader: BlobReader,
    first: number,
    end: number,
    onUnreadable: () => void = () => undefined,
  ) {
    this.#onUnreadable = onUnreadable;
    this.#reader = reader;
    this.#position = first;
    this.#end = end;
  }

  async read(): Promise<readonly Uint8Array[] | undefined> {
    const missing = this.#end - this.#position;
    if (missing === 0 || this.#isClosed) return undefined;
    this.#isReading = true;
    try {
      this.#buffer ??= takeReadBuffer(Math.min(READ_BYTES, missing));
      const target = this.#buffer.subarray(
        0,
        Math.min(this.#buffer.length, missing),
      );
      const bytesRead = await this.#reader.read(target, this.#position);
      if (bytesRead === 0) throw new BrokenBody("the stored blob is short");
      this.#position += bytesRead;
      return [target.subarray(0, bytesRead)];
    } catch (error) {
      if (!this.#isClosed) this.#onUnreadable();
      throw error;
    } finally {
      this.#isReading = false;
      if (this.#isClosed) this.#release();
    }
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (!this.#isReading) this.#release();
  }

  #release(): void {
    if (this.#buffer !== undefined) giveReadBuffer(this.#buffer);
    this.#buffer = undefined;
    void this.#reader.close().catch(() => {});
  }
}
