import type { BlobReader, BlobWriter } from "../../storage/blob-store.ts";
import type { ContentHash } from "../../storage/content-hash.ts";
import { BrokenBody } from "../blobs/body.ts";
import { countPassingBytes } from "./chunk-garbage.ts";
import { ChunkWindow } from "./chunk-window.ts";

/**
 * Bytes of one write, which starts at a multiple of them: the page cache takes its memory in pieces
 * as large as the writes allow, and one of 2 MiB costs a tenth of as many in pieces of 256 KiB.
 */
const WRITE_BYTES = 2 * 1024 * 1024;
/** Room in the window for what comes while the next step is not stored yet. */
const FREE_PART = 1 / 8;
/** Chunks of a socket's size are never so many; tiny ones go in several writes. */
const WRITE_CHUNKS = 512;

/** Where the bytes go: to a partial blob, or nowhere, continuing a hash of the `offset` bytes before. */
export type FillStorage =
  | { readonly kind: "writer"; readonly writer: BlobWriter }
  | {
      readonly kind: "none";
      readonly hash: ContentHash;
      readonly offset: number;
    };

export interface FillBytesOptions {
  readonly storage: FillStorage;
  /** Bytes of the newest chunks that are held in memory: a power of two. May change at any time. */
  windowBytes(): number;
  /** Position of the reader nearest to the head; undefined where none can use what is held. */
  fastestReader(): number | undefined;
  /** There is room for more. */
  onRoom(): void;
  /** The storage failed: from here on the bytes are passed through. */
  onDegraded(error: unknown): void;
}

/**
 * What came of a blob: the newest bytes in a window in memory, all of them in the partial file,
 * which is written behind the window in large writes, and a hash that follows what was stored.
 * When the storage fails the bytes stay in the window until the fastest reader has them.
 */
export class FillBytes {
  readonly #options: FillBytesOptions;
  readonly #writer: BlobWriter | undefined;
  readonly #hash: ContentHash;
  readonly #window: ChunkWindow;
  /** The hash of what was stored when the storage failed: where continuations start from. */
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

  /** Position after the newest byte that came. */
  get end(): number {
    return this.#window.end;
  }

  /** Position after the last byte that can be read back from the storage. */
  get storedEnd(): number {
    return this.#writer?.writtenBytes ?? 0;
  }

  /** Whether the bytes go into the storage, as far as is known. */
  get isStored(): boolean {
    return this.#passedFrom === undefined;
  }

  /** Present from the start to the end of a fill that has a storage, which may have failed. */
  get writer(): BlobWriter | undefined {
    return this.#writer;
  }

  /** Whoever brings more is to wait for {@link FillBytesOptions.onRoom}. */
  get isFull(): boolean {
    return this.#window.costBytes > this.#options.windowBytes();
  }

  push(bytes: Buffer): void {
    this.#window.push(bytes);
    if (!this.isStored) this.#hash.update(bytes);
    this.trim();
    if (this.storedEnd < this.#stepEnd()) this.#startWriter();
  }

  /** Bytes from the window, or undefined where the position has left it. */
  fromWindow(
    position: number,
    limit: number,
    maxBytes: number,
  ): Buffer[] | undefined {
    return position < this.#window.start
      ? undefined
      : this.#window.slice(position, limit, maxBytes);
  }

  /** The partial file, opened once for all readers. */
  openFile(): Promise<BlobReader> {
    this.#file ??= this.#open();
    return this.#file;
  }

  /** What {@link openFile} opened, once it is open. */
  get openedFile(): BlobReader | undefined {
    return this.#openedFile;
  }

  async #open(): Promise<BlobReader> {
    if (this.#writer === undefined) throw new BrokenBody("nothing is stored");
    this.#openedFile = await this.#writer.openReader();
    return this.#openedFile;
  }

  /** Resolves when all that came is stored, or will not be. */
  async flush(): Promise<void> {
    this.#isFlushing = true;
    // A writer that is just ending has not seen that all is to be written.
    while (
      this.#writing !== undefined ||
      (this.isStored && this.storedEnd < this.end)
    ) {
      this.#startWriter();
      await this.#writing;
    }
    this.#isFlushing = false;
  }

  /** Of all that came, after a {@link flush}. @throws StorageError */
  digest(): ReturnType<ContentHash["digest"]> {
    return this.#hash.digest();
  }

  /**
   * Where a body for a reader behind the window starts: where the storage ended, or at the first
   * byte where the storage can't be read, so that its own hash covers every byte before the end.
   */
  continueFrom(position: number, createHash: () => ContentHash): FillStorage {
    const from = this.#passedFrom;
    return from === undefined || position < from.offset
      ? { kind: "none", hash: createHash(), offset: 0 }
      : { kind: "none", hash: from.hash.fork(), offset: from.offset };
  }

  /** Drops the chunks that nobody needs from memory, and lets more come where there is room. */
  trim(): void {
    // What is stored is held for readers near the head: reading it back costs them a copy and a thread's turn.
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

  /** From now on nothing is stored. Called while nothing is written. */
  passThrough(reason: unknown): void {
    if (this.#writer !== undefined && this.isStored) {
      this.#degrade(this.#writer, reason);
    }
  }

  onSmallerWindow(): void {
    this.trim();
    if (this.storedEnd < this.#stepEnd()) this.#startWriter();
  }

  /** Lets go of the memory: readers go on from the file. */
  clearWindow(): void {
    while (this.#window.start < this.#window.end) this.#dropOldest();
  }

  #dropOldest(): void {
    const chunk = this.#window.dropOldest();
    if (chunk !== undefined) countPassingBytes(chunk.length);
  }

  /** Nothing comes any more. */
  closeHash(): void {
    this.#hash.close();
  }

  /** Nobody reads any more. */
  release(): void {
    this.clearWindow();
    this.#passedFrom?.hash.close();
    this.#file?.then((file) => file.close()).catch(() => {});
    this.#file = undefined;
    this.#openedFile = undefined;
  }

  /** While one step is written the next one is collected. */
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

  /** Position up to which is to be written now: the last whole step, or all where it can't wait. */
  #stepEnd(): number {
    if (!this.isStored) return 0;
    const { end } = this.#window;
    return this.#isFlushing || this.isFull
      ? end
      : end - (end % this.#stepBytes);
  }

  /** From now on the bytes pass through; the hash gets what the storage did not take. */
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
