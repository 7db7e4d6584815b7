import type { BlobReader } from "../../storage/blob-store.ts";
import { BrokenBody, type RangedBody } from "../../bodies/body.ts";
import {
  returnReadBuffer,
  READ_BYTES,
  takeReadBuffer,
} from "../../bodies/read-buffers.ts";

/** A fill as seen by its readers: the bytes that may be read, in memory and in the file. */
export interface ReadableFill {
  /** Settles when the upstream has answered. */
  readonly head: Promise<unknown>;
  /** Undefined until the size is known. */
  readonly sizeBytes: number | undefined;
  readonly isVerified: boolean;
  readonly failure: Error | undefined;
  /** Position after the last byte that readers may get now. */
  readonly readableEnd: number;
  /** Position after the last byte in the file. */
  readonly storedEnd: number;
  /** The file, if it is open already. */
  readonly openedFile: BlobReader | undefined;
  openFile(): Promise<BlobReader>;
  /** Returns bytes from the window; undefined if `position` is before it. */
  fromWindow(
    position: number,
    limit: number,
    maxBytes: number,
  ): readonly Uint8Array[] | undefined;
  /** Starts another fill for one reader, with the bytes from `position` on. */
  continuation(
    position: number,
  ): { openReader(): FillReader } & Pick<ReadableFill, "head">;
  /** Resolves at the next change of the fill's state. */
  changed(): Promise<void>;
  onReaderProgress(): void;
  onReaderClosed(reader: FillReader): void;
}

/** Reads the whole blob or a range of it from a fill, at the pace of one client. */
export class FillReader implements RangedBody {
  readonly #fill: ReadableFill;
  #position = 0;
  #heldFrom = Infinity;
  /** Position after the last byte to read; undefined until the size is known. */
  #end: number | undefined;
  #buffer: Buffer | undefined;
  #continuation: FillReader | undefined;
  #isReading = false;
  #isClosed = false;

  constructor(fill: ReadableFill) {
    this.#fill = fill;
  }

  /** Position of the next byte to read. */
  get position(): number {
    return this.#position;
  }

  /** The first byte of what its user still has from the fill's memory; the last is before {@link position}. */
  get heldFrom(): number {
    return this.#heldFrom;
  }

  setRange(first: number, last: number): void {
    this.#position = first;
    this.#end = last + 1;
    this.#continuation?.setRange(first, last);
    // What lies between is not held for this reader any more.
    this.#fill.onReaderProgress();
  }

  async read(): Promise<readonly Uint8Array[] | undefined> {
    this.#isReading = true;
    this.#heldFrom = Infinity;
    try {
      return await this.#next();
    } finally {
      this.#isReading = false;
      if (this.#isClosed) this.#releaseBuffer();
    }
  }

  /** Sends bytes from the file without a copy, also if the window holds them. */
  sendTo(socket: number, maxBytes: number): number {
    const fill = this.#fill;
    const file = fill.openedFile;
    this.#heldFrom = Infinity;
    if (
      file === undefined ||
      this.#isClosed ||
      this.#continuation !== undefined ||
      fill.failure !== undefined
    ) {
      return 0;
    }
    const limit = Math.min(
      fill.readableEnd,
      fill.storedEnd,
      this.#end ?? Infinity,
    );
    const length = Math.min(maxBytes, limit - this.#position);
    if (length <= 0) return 0;
    const sent = file.sendTo?.(socket, this.#position, length) ?? 0;
    this.#position += sent;
    if (sent > 0) fill.onReaderProgress();
    return sent;
  }

  async #next(): Promise<readonly Uint8Array[] | undefined> {
    for (;;) {
      if (this.#isClosed) return undefined;
      if (this.#continuation !== undefined) {
        return this.#advance(await this.#continuation.read());
      }
      const fill = this.#fill;
      const end = this.#end ?? (fill.isVerified ? fill.sizeBytes : undefined);
      if (this.#position === end) return undefined;
      const limit = Math.min(fill.readableEnd, end ?? Infinity);
      if (this.#position < limit) {
        const parts = fill.fromWindow(this.#position, limit, READ_BYTES);
        if (parts !== undefined) {
          this.#heldFrom = this.#position;
          return this.#advance(parts);
        }
        if (this.#position < fill.storedEnd) {
          const part = await this.#fromFile(Math.min(limit, fill.storedEnd));
          if (part !== undefined) return this.#advance([part]);
        }
        if (fill.failure === undefined) {
          await this.#continue();
          continue;
        }
      }
      if (fill.failure !== undefined) {
        throw new BrokenBody("the fill failed", { cause: fill.failure });
      }
      await fill.changed();
    }
  }

  #advance(
    parts: readonly Uint8Array[] | undefined,
  ): readonly Uint8Array[] | undefined {
    if (parts !== undefined) {
      for (const part of parts) this.#position += part.length;
      this.#fill.onReaderProgress();
    }
    return parts;
  }

  /** Reads from the file; undefined if the storage cannot be read. */
  async #fromFile(limit: number): Promise<Uint8Array | undefined> {
    try {
      const file = await this.#fill.openFile();
      this.#buffer ??= takeReadBuffer(READ_BYTES);
      const wanted = Math.min(this.#buffer.length, limit - this.#position);
      const target = this.#buffer.subarray(0, wanted);
      const bytesRead = await file.read(target, this.#position);
      return bytesRead === 0 ? undefined : target.subarray(0, bytesRead);
    } catch {
      return undefined;
    }
  }

  /** Continues with a fill of its own from the current position. */
  async #continue(): Promise<void> {
    const fill = this.#fill.continuation(this.#position);
    const reader = fill.openReader();
    reader.#position = this.#position;
    reader.#end = this.#end;
    try {
      await fill.head;
    } catch (cause) {
      reader.close();
      throw new BrokenBody("the download could not be continued", { cause });
    }
    this.#continuation = reader;
    if (this.#isClosed) reader.close();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#continuation?.close();
    if (!this.#isReading) this.#releaseBuffer();
    this.#fill.onReaderClosed(this);
  }

  #releaseBuffer(): void {
    if (this.#buffer !== undefined) returnReadBuffer(this.#buffer);
    this.#buffer = undefined;
  }
}
