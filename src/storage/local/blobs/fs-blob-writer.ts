import assert from "node:assert/strict";
import type { Digest } from "../../../oci/digest.ts";
import type { BlobReader, BlobWriter } from "../../blob-store.ts";
import { StorageError } from "../../blob-store.ts";
import type { ContentHash } from "../../content-hash.ts";
import { asStorageError, type FileSystem } from "../root/file-system.ts";
import { EarlySync } from "./early-sync.ts";
import { FileBlobReader, type SharedFile } from "./shared-file.ts";
import type { StoredHash } from "./stored-hash.ts";

export interface FsBlobWriterParts {
  readonly fileSystem: FileSystem;
  readonly path: string;
  readonly file: SharedFile;
  readonly hash: StoredHash;
  /** Bytes that an earlier write left; the hash already covers them. */
  readonly leftBytes: number;
  /** Whether its commit is waited for, so that the disk must not start only then. */
  readonly isAwaited: boolean;
  /** Renames the file to the digest and makes the name durable. @throws system errors */
  readonly moveToBlobs: (digest: Digest) => Promise<void>;
}

/** The most bytes of one call: hash and readers follow in steps, and an error costs at most one step. */
const WRITE_BYTES = 4 * 1024 * 1024;
/** Below the lowest limit of systems for one call (IOV_MAX). */
const WRITE_CHUNKS = 512;

/** Writes a blob into a file of the partial folder, which a commit renames to its digest. */
export class FsBlobWriter implements BlobWriter {
  readonly #parts: FsBlobWriterParts;
  /** Shared with all readers, so that they see later appends. */
  readonly #extent: { sizeBytes: number };
  readonly #early: EarlySync | undefined;
  #isAppending = false;
  #hasEnded = false;
  /** A failed write may have left bytes after those that count. */
  #isTorn = false;

  constructor(parts: FsBlobWriterParts) {
    this.#parts = parts;
    this.#extent = { sizeBytes: parts.leftBytes };
    this.#early = parts.isAwaited
      ? new EarlySync(parts.fileSystem, parts.file.fd, parts.leftBytes)
      : undefined;
  }

  get writtenBytes(): number {
    return this.#extent.sizeBytes;
  }

  get hash(): ContentHash {
    return this.#parts.hash;
  }

  async append(chunks: readonly Uint8Array[]): Promise<void> {
    assert(!this.#hasEnded, "an ended writer takes no bytes");
    assert(!this.#isAppending, "appends are sequential");
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

  async commit(digest: Digest): Promise<void> {
    this.#end();
    const { fileSystem, path, file } = this.#parts;
    let operation = "truncate";
    try {
      if (this.#isTorn) {
        await fileSystem.truncate(file.fd, this.writtenBytes);
      }
      operation = "fdatasync";
      await this.#early?.check();
      await fileSystem.fdatasync(file.fd);
      operation = "publish";
      await this.#parts.moveToBlobs(digest);
    } catch (error) {
      // After a failed sync the system marks the pages as written, so a second try would prove nothing.
      await fileSystem.unlink(path).catch(() => undefined);
      throw asStorageError(operation, error);
    } finally {
      await this.#early?.settled();
      await file.release();
    }
  }

  async suspend(): Promise<void> {
    this.#end();
    const { fileSystem, path, file } = this.#parts;
    await this.#early?.settled();
    try {
      if (this.writtenBytes === 0 || this.#early?.hasFailed === true) {
        await fileSystem.unlink(path);
      } else if (this.#isTorn) {
        await fileSystem.truncate(file.fd, this.writtenBytes);
      }
    } catch {
      await fileSystem.unlink(path).catch(() => undefined);
    } finally {
      await file.release();
    }
  }

  async abort(): Promise<void> {
    this.#end();
    const { fileSystem, path, file } = this.#parts;
    await fileSystem.unlink(path).catch(() => undefined);
    await this.#early?.settled();
    await file.release();
  }

  #end(): void {
    assert(!this.#hasEnded, "a writer ends once");
    assert(!this.#isAppending, "a writer ends after its last append");
    this.#hasEnded = true;
    this.#parts.hash.close();
  }

  /** @returns the rest of the chunks, which is not stored yet */
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
    this.#early?.grewTo(this.#extent.sizeBytes);
    return rest;
  }
}

/** Splits chunks after `sizeBytes` bytes; empty chunks before the split belong to `taken`. */
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
