import type { BlobReader, BlobWriter } from "../../storage/blob-store.ts";
import type { ContentHash } from "../../storage/content-hash.ts";
import {
  dropSpareBuffers,
  giveSocketBuffer,
} from "../../wire/socket-buffers.ts";
import { BrokenBody } from "../../bodies/body.ts";
import { countPassingBytes } from "../../wire/chunk-garbage.ts";
import { ChunkWindow } from "./chunk-window.ts";

/**
 * Size and alignment of a write. The page cache allocates memory in pieces as large as the write
 * allows, and one piece of 2 MiB costs a tenth of eight pieces of 256 KiB.
 */
const WRITE_BYTES = 2 * 1024 * 1024;
/** The part of the window that is kept free for bytes that arrive during a write. */
const FREE_PART = 1 / 8;
/** Bound of the chunks in one write: typical chunks stay below it, tiny ones are split over several writes. */
const WRITE_CHUNKS = 512;

/** The target of the bytes: a writer, or none, with a hash of the `offset` bytes before. */
export type FillStorage =
  | { readonly kind: "writer"; readonly writer: BlobWriter }
  | {
      readonly kind: "none";
      readonly hash: ContentHash;
      readonly offset: number;
    };

export interface FillBytesOptions {
  readonly storage: FillStorage;
  /** Size of the window in memory: a power of two. May change at any time. */
  windowBytes(): number;
  /** Position of the fastest reader; undefined if none can use the bytes in the window. */
  fastestReader(): number | undefined;
  /** Returns whether a reader still uses bytes between these positions, which it got from memory. */
  isHeld(start: number, end: number): boolean;
  /** The window has room for more bytes. */
  onRoom(): void;
  /** The storage failed: from now on the bytes are passed through. */
  onDegraded(error: unknown): void;
}

/**
 * The received bytes of a blob: the newest ones in a window in memory, all of them in the partial file,
 * which is written from the window in large steps, and a hash of the stored bytes. If the storage fails,
 * bytes stay in the window until the fastest reader has them.
 */
export class FillBytes {
  readonly #options: FillBytesOptions;
  readonly #writer: BlobWriter | undefined;
  readonly #hash: ContentHash;
  readonly #window: ChunkWindow;
  /** The hash of the bytes that were stored before the storage failed; continuations start from it. */
  #passedFrom: { offset: number; hash: ContentHash } | undefined;
  #writing: Promise<void> | undefined;
  #isFlushing = false;
  #file: Promise<BlobReader> | undefined;
  #openedFile: BlobReader | undefined;

  constructor(options: FillBytesOptions) {
    this.#options = options;
    const { storage } = options;
    if (storage.kind === "writer") {
      this.#writer = storage.writer;
      this.#hash = storage.writer.hash;
      this.#window = new ChunkWindow(storage.writer.writtenBytes);
    } else {
      this.#hash = storage.hash;
      this.#window = new ChunkWindow(storage.offset);
      this.#passedFrom = { offset: storage.offset, hash: storage.hash.fork() };
    }
  }

  /** Position after the newest byte received. */
  get end(): number {
    return this.#window.end;
  }

  /** Position after the last byte that can be read from the storage. */
  get storedEnd(): number {
    return this.#writer?.writtenBytes ?? 0;
  }

  /** True while the bytes are stored. */
  get isStored(): boolean {
    return this.#passedFrom === undefined;
  }

  /** The writer of a fill with a storage, also after the storage failed. */
  get writer(): BlobWriter | undefined {
    return this.#writer;
  }

  /** True if the download must wait for {@link FillBytesOptions.onRoom}. */
  get isFull(): boolean {
    return this.#window.costBytes > this.#options.windowBytes();
  }

  push(bytes: Buffer): void {
    this.#window.push(bytes);
    if (!this.isStored) this.#hash.update(bytes);
    this.trim();
    if (this.storedEnd < this.#stepEnd()) this.#startWriter();
  }

  /** Returns bytes from the window; undefined if the position is before it. */
  fromWindow(
    position: number,
    limit: number,
    maxBytes: number,
  ): Buffer[] | undefined {
    return position < this.#window.start
      ? undefined
      : this.#window.slice(position, limit, maxBytes);
  }

  /** Opens the partial file, once for all readers. */
  openFile(): Promise<BlobReader> {
    this.#file ??= this.#open();
    return this.#file;
  }

  /** The partial file, if {@link openFile} has opened it. */
  get openedFile(): BlobReader | undefined {
    return this.#openedFile;
  }

  async #open(): Promise<BlobReader> {
    if (this.#writer === undefined) throw new BrokenBody("nothing is stored");
    this.#openedFile = await this.#writer.openReader();
    return this.#openedFile;
  }

  /** Resolves when all received bytes are stored, or the storage has failed. */
  async flush(): Promise<void> {
    this.#isFlushing = true;
    // A write loop that is just ending has not seen `#isFlushing`.
    while (
      this.#writing !== undefined ||
      (this.isStored && this.storedEnd < this.end)
    ) {
      this.#startWriter();
      await this.#writing;
    }
    this.#isFlushing = false;
  }

  /** Returns the digest of all received bytes, after a {@link flush}. @throws StorageError */
  digest(): ReturnType<ContentHash["digest"]> {
    return this.#hash.digest();
  }

  /**
   * Returns the start of a continuation for a reader before the window: the position at which storing
   * stopped or, for an earlier position, the first byte of the blob, so that the hash covers all bytes.
   */
  continueFrom(position: number, createHash: () => ContentHash): FillStorage {
    const from = this.#passedFrom;
    return from === undefined || position < from.offset
      ? { kind: "none", hash: createHash(), offset: 0 }
      : { kind: "none", hash: from.hash.fork(), offset: from.offset };
  }

  /** Drops chunks that are not needed any more; resumes the download if there is room. */
  trim(): void {
    // Stored bytes stay in the window for readers near the newest byte: reading the file costs a copy and a thread.
    const windowBytes = this.#options.windowBytes();
    const max = this.isStored ? windowBytes * (1 - FREE_PART) : windowBytes;
    const neededFrom = this.isStored
      ? this.storedEnd
      : (this.#options.fastestReader() ?? this.end);
    while (
      this.#window.costBytes > max &&
      this.#window.start < this.#window.end &&
      this.#window.oldestEnd <= neededFrom
    ) {
      this.#dropOldest();
    }
    if (!this.isFull) this.#options.onRoom();
  }

  /** Stops storing. Must not be called during a write. */
  passThrough(reason: unknown): void {
    if (this.#writer !== undefined && this.isStored) {
      this.#degrade(this.#writer, reason);
    }
  }

  onSmallerWindow(): void {
    this.trim();
    if (this.storedEnd < this.#stepEnd()) this.#startWriter();
  }

  /** Frees the memory; readers continue from the file. */
  clearWindow(): void {
    while (this.#window.start < this.#window.end) this.#dropOldest();
  }

  #dropOldest(): void {
    const { start, oldestEnd } = this.#window;
    const chunk = this.#window.dropOldest();
    if (chunk === undefined) return;
    if (this.#options.isHeld(start, oldestEnd) || !giveSocketBuffer(chunk)) {
      countPassingBytes(chunk.length);
    }
  }

  /** Releases the hash at the end of the download. */
  closeHash(): void {
    this.#hash.close();
    dropSpareBuffers();
  }

  /** Releases memory and file after the last reader. */
  release(): void {
    this.clearWindow();
    this.#passedFrom?.hash.close();
    this.#file?.then((file) => file.close()).catch(() => {});
    this.#file = undefined;
    this.#openedFile = undefined;
  }

  /** Half of the window at most: one step is collected while another one is written. */
  get #stepBytes(): number {
    return Math.min(WRITE_BYTES, this.#options.windowBytes() >> 1);
  }

  #startWriter(): void {
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
  }

  async #write(): Promise<void> {
    const writer = this.#writer;
    if (writer === undefined || !this.isStored) return;
    while (writer.writtenBytes < this.#stepEnd()) {
      const from = writer.writtenBytes;
      const stepBytes = this.#stepBytes;
      const toStep = stepBytes - (from % stepBytes);
      try {
        await writer.append(
          this.#window.slice(from, this.#window.end, toStep, WRITE_CHUNKS),
        );
      } catch (error) {
        this.#degrade(writer, error);
        return;
      }
      this.trim();
    }
  }

  /** Position up to which bytes are written now: the last whole step, or all bytes if they cannot wait. */
  #stepEnd(): number {
    if (!this.isStored) return 0;
    const { end } = this.#window;
    return this.#isFlushing || this.isFull
      ? end
      : end - (end % this.#stepBytes);
  }

  /** Stops storing; the hash gets the bytes that the storage has not taken. */
  #degrade(writer: BlobWriter, error: unknown): void {
    let at = writer.writtenBytes;
    this.#passedFrom = { offset: at, hash: this.#hash.fork() };
    while (at < this.#window.end) {
      for (const part of this.#window.slice(
        at,
        this.#window.end,
        WRITE_BYTES,
      )) {
        this.#hash.update(part);
        at += part.length;
      }
    }
    this.#options.onDegraded(error);
    this.trim();
  }
}
