import assert from "node:assert/strict";
import type { BlobReader, PartialBlob } from "../../blob-store.ts";
import { StorageError } from "../../blob-store.ts";
import type { ContentHash } from "../../content-hash.ts";
import { asStorageError, type FileSystem } from "../root/file-system.ts";
import { FileBlobReader, type SharedFile } from "./shared-file.ts";
import type { StoredHash } from "./stored-hash.ts";

export interface FsPartialBlobParts {
  readonly fileSystem: FileSystem;
  readonly path: string;
  readonly file: SharedFile;
  readonly hash: StoredHash;
  /** Left by an earlier fill; the hash was told of them. */
  readonly leftBytes: number;
  /** Renames the file to its digest and makes that durable. @throws system errors */
  readonly moveToBlobs: () => Promise<void>;
}

/** One call never takes more: the hash and the readers follow in steps, and an error costs at most one. */
const WRITE_BYTES = 4 * 1024 * 1024;
/** Below the least that systems take in one call (IOV_MAX). */
const WRITE_CHUNKS = 512;

export class FsPartialBlob implements PartialBlob {
  readonly #parts: FsPartialBlobParts;
  /** Shared with all readers, so that they see what was appended since. */
  readonly #extent: { sizeBytes: number };
  #isAppending = false;
  #hasEnded = false;
  /** A failed write may have left bytes behind those that count. */
  #isTorn = false;

  constructor(parts: FsPartialBlobParts) {
    this.#parts = parts;
    this.#extent = { sizeBytes: parts.leftBytes };
  }

  get writtenBytes(): number {
    return this.#extent.sizeBytes;
  }

  get hash(): ContentHash {
    return this.#parts.hash;
  }

  async append(chunks: readonly Uint8Array[]): Promise<void> {
    assert(!this.#hasEnded, "a partial takes bytes until its end");
    assert(!this.#isAppending, "appends come one after the other");
    this.#isAppending = true;
    try {
      let rest = chunks;
      while (rest.length > 0) rest = await this.#write(rest);
    } catch (error) {
      this.#isTorn = true;
      throw asStorageError("write", error);
    } finally {
      this.#isAppending = false;
    }
  }

  openReader(): Promise<BlobReader> {
    return this.#hasEnded
      ? Promise.reject(new StorageError("open", "ECLOSED"))
      : Promise.resolve(
          new FileBlobReader(this.#parts.file.retain(), this.#extent),
        );
  }

  async publish(): Promise<void> {
    this.#end();
    const { fileSystem, path, file } = this.#parts;
    let operation = "truncate";
    try {
      if (this.#isTorn) {
        await fileSystem.truncate(file.fd, this.writtenBytes);
      }
      operation = "fdatasync";
      await fileSystem.fdatasync(file.fd);
      operation = "publish";
      await this.#parts.moveToBlobs();
    } catch (error) {
      // After a failed sync the system counts the pages as written, so a second try would prove nothing.
      await fileSystem.unlink(path).catch(() => undefined);
      throw asStorageError(operation, error);
    } finally {
      await file.release();
    }
  }

  async suspend(): Promise<void> {
    this.#end();
    const { fileSystem, path, file } = this.#parts;
    try {
      if (this.writtenBytes === 0) await fileSystem.unlink(path);
      else if (this.#isTorn) {
        await fileSystem.truncate(file.fd, this.writtenBytes);
      }
    } catch {
      await fileSystem.unlink(path).catch(() => undefined);
    } finally {
      await file.release();
    }
  }

  async discard(): Promise<void> {
    this.#end();
    const { fileSystem, path, file } = this.#parts;
    await fileSystem.unlink(path).catch(() => undefined);
    await file.release();
  }

  #end(): void {
    assert(!this.#hasEnded, "a partial ends once");
    assert(!this.#isAppending, "a partial ends after its last append");
    this.#hasEnded = true;
    this.#parts.hash.close();
  }

  /** @returns what of the chunks is not stored yet */
  async #write(chunks: readonly Uint8Array[]): Promise<readonly Uint8Array[]> {
    const batch = firstBytes(chunks.slice(0, WRITE_CHUNKS), WRITE_BYTES).taken;
    const batchBytes = batch.reduce((sum, chunk) => sum + chunk.length, 0);
    if (batchBytes === 0) return chunks.slice(batch.length);
    const storedBytes = await this.#parts.fileSystem.writev(
      this.#parts.file.fd,
      batch,
      this.writtenBytes,
    );
    if (storedBytes === 0) throw new StorageError("write", "EIO");
    const { taken, rest } = firstBytes(chunks, storedBytes);
    this.#extent.sizeBytes += storedBytes;
    this.#parts.hash.addStored(taken, this.#extent.sizeBytes);
    return rest;
  }
}

/** Cuts a run of chunks after so many bytes; empty chunks before the cut go with `taken`. */
function firstBytes(
  chunks: readonly Uint8Array[],
  sizeBytes: number,
): { taken: readonly Uint8Array[]; rest: readonly Uint8Array[] } {
  let leftBytes = sizeBytes;
  for (const [index, chunk] of chunks.entries()) {
    if (chunk.length > leftBytes) {
      const taken = chunks.slice(0, index);
      if (leftBytes === 0) return { taken, rest: chunks.slice(index) };
      return {
        taken: [...taken, chunk.subarray(0, leftBytes)],
        rest: [chunk.subarray(leftBytes), ...chunks.slice(index + 1)],
      };
    }
    leftBytes -= chunk.length;
  }
  return { taken: chunks, rest: [] };
}
