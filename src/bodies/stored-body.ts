import type { BlobReader } from "../storage/blob-store.ts";
import type { Verification } from "../storage/blob-verifier.ts";
import { BrokenBody, type RangedBody, TAIL_BYTES } from "./body.ts";
import {
  returnReadBuffer,
  READ_BYTES,
  takeReadBuffer,
} from "./read-buffers.ts";

/** Size of a read between calls of sendTo(): enough for the stream to report when the socket is ready again. */
const REMINDER_BYTES = 16 * 1024;

/** A stored blob, or a range of it, read into one buffer that is reused. */
export class StoredBody implements RangedBody {
  readonly #reader: BlobReader;
  #position: number;
  #end: number;
  readonly #onUnreadable: () => void;
  #readBytes = READ_BYTES;
  #buffer: Buffer | undefined;
  #isReading = false;
  #isClosed = false;
  #isBroken = false;
  #onClose: (() => void) | undefined;
  /** Present while the blob is being verified: the tail waits for it. */
  #verification: Promise<Verification> | undefined;

  /**
   * @param end position after the last byte
   * @param onUnreadable called if the bytes exist and cannot be read
   * @param verification the last 64 KiB are withheld until it has succeeded
   */
  constructor(
    reader: BlobReader,
    first: number,
    end: number,
    onUnreadable: () => void = () => undefined,
    verification?: Promise<Verification>,
  ) {
    this.#verification = verification;
    void verification?.then((ended) => {
      this.#verification = undefined;
      if (ended === "wrong") this.break();
    });
    this.#onUnreadable = onUnreadable;
    this.#reader = reader;
    this.#position = first;
    this.#end = end;
  }

  /** @param onClose called once, when it is closed */
  set onClose(onClose: () => void) {
    this.#onClose = onClose;
  }

  setRange(first: number, last: number): void {
    this.#position = first;
    this.#end = last + 1;
  }

  /** Marks the stored bytes as wrong: the rest is not sent. */
  break(): void {
    this.#isBroken = true;
  }

  async read(): Promise<readonly Uint8Array[] | undefined> {
    if (this.#readableEnd === this.#position) await this.#verification;
    if (this.#isBroken) throw new BrokenBody("the stored blob is wrong");
    const missing = this.#readableEnd - this.#position;
    if (missing === 0 || this.#isClosed) return undefined;
    this.#isReading = true;
    try {
      this.#buffer ??= takeReadBuffer(Math.min(this.#readBytes, missing));
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

  sendTo(socket: number, maxBytes: number): number {
    if (this.#isClosed || this.#isBroken) return 0;
    const length = Math.min(maxBytes, this.#readableEnd - this.#position);
    if (length <= 0) return 0;
    const sent = this.#reader.sendTo?.(socket, this.#position, length);
    this.#setReadBytes(sent === undefined ? READ_BYTES : REMINDER_BYTES);
    this.#position += sent ?? 0;
    return sent ?? 0;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#onClose?.();
    if (!this.#isReading) this.#release();
  }

  get #readableEnd(): number {
    return this.#verification === undefined
      ? this.#end
      : Math.max(this.#position, this.#end - TAIL_BYTES);
  }

  #setReadBytes(bytes: number): void {
    if (this.#readBytes === bytes) return;
    this.#readBytes = bytes;
    this.#returnBuffer();
  }

  #returnBuffer(): void {
    if (this.#buffer !== undefined) returnReadBuffer(this.#buffer);
    this.#buffer = undefined;
  }

  #release(): void {
    this.#returnBuffer();
    void this.#reader.close().catch(() => {});
  }
}
