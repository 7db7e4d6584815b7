import assert from "node:assert/strict";
import type { BlobReader } from "../../blob-store.ts";
import { StorageError } from "../../blob-store.ts";
import { asStorageError, type FileSystem } from "../root/file-system.ts";

/** So few bytes are copied in less time than it takes to wake a thread. */
const READ_INLINE_BYTES = 16 * 1024;

/**
 * One descriptor shared by all readers and the writer of a file, so that hundreds of readers of a fill
 * need one. It is closed when the last holder has released it and no read is in progress, so the system
 * never reuses a number that may still be read from.
 */
export class SharedFile {
  readonly fd: number;
  readonly #fileSystem: FileSystem;
  #holders = 1;

  constructor(fileSystem: FileSystem, fd: number) {
    this.#fileSystem = fileSystem;
    this.fd = fd;
  }

  retain(): this {
    assert(this.#holders > 0, "a closed file can't be shared");
    this.#holders += 1;
    return this;
  }

  /** Ignores errors of the close: whatever had to be durable was synced before. */
  async release(): Promise<void> {
    this.#holders -= 1;
    if (this.#holders === 0) {
      await this.#fileSystem.close(this.fd).catch(() => undefined);
    }
  }

  /**
   * Fills the first `length` bytes of `target`.
   *
   * @throws StorageError; with code `EOF` if the file ends before
   */
  readFully(
    target: Uint8Array,
    length: number,
    position: number,
  ): Promise<number> {
    if (
      length <= READ_INLINE_BYTES &&
      this.#fileSystem.pageCache?.read(this.fd, target, length, position)
    ) {
      return Promise.resolve(length);
    }
    this.retain();
    return this.#fileSystem.read(this.fd, target, 0, length, position).then(
      (bytesRead) => {
        if (bytesRead < length) {
          return this.#readRest(target, bytesRead, length, position);
        }
        void this.release();
        return length;
      },
      (error: unknown) => {
        void this.release();
        throw asStorageError("read", error);
      },
    );
  }

  /** Like {@link PageCache.send}. */
  send(socket: number, position: number, length: number): number | undefined {
    return this.#fileSystem.pageCache?.send(socket, this.fd, position, length);
  }

  async #readRest(
    target: Uint8Array,
    already: number,
    length: number,
    position: number,
  ): Promise<number> {
    try {
      let done = already;
      let last = already;
      while (last > 0 && done < length) {
        last = await this.#fileSystem.read(
          this.fd,
          target,
          done,
          length - done,
          position + done,
        );
        done += last;
      }
      if (done < length) throw new StorageError("read", "EOF");
      return length;
    } catch (error) {
      throw asStorageError("read", error);
    } finally {
      await this.release();
    }
  }
}

/** How far a file may be read; grows while the file is being written. */
export interface Extent {
  readonly sizeBytes: number;
  readonly writtenAtMs?: number;
}

/** Owns one hold on the file and releases it when closed. */
export class FileBlobReader implements BlobReader {
  readonly #file: SharedFile;
  readonly #extent: Extent;
  #isClosed = false;

  constructor(file: SharedFile, extent: Extent) {
    this.#file = file;
    this.#extent = extent;
  }

  get sizeBytes(): number {
    return this.#extent.sizeBytes;
  }

  get writtenAtMs(): number | undefined {
    return this.#extent.writtenAtMs;
  }

  read(target: Uint8Array, position: number): Promise<number> {
    if (this.#isClosed) {
      return Promise.reject(new StorageError("read", "EBADF"));
    }
    const length = Math.min(target.length, this.#extent.sizeBytes - position);
    return length > 0
      ? this.#file.readFully(target, length, position)
      : Promise.resolve(0);
  }

  sendTo(
    socket: number,
    position: number,
    maxBytes: number,
  ): number | undefined {
    if (this.#isClosed) return undefined;
    const length = Math.min(maxBytes, this.#extent.sizeBytes - position);
    return length > 0 ? this.#file.send(socket, position, length) : 0;
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#file.release();
  }
}
