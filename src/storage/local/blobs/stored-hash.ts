import {
  createDigestHash,
  type Digest,
  type DigestAlgorithm,
  digestSoFar,
} from "../../../oci/digest.ts";
import { StorageError } from "../../blob-store.ts";
import type { ContentHash } from "../../content-hash.ts";
import { InlineHash } from "../../inline-hash.ts";
import type { SharedFile } from "./shared-file.ts";

/** The hash of a blob writer. It is also notified of what the file holds. */
export interface StoredHash extends ContentHash {
  /** Adds `chunks`, which are stored; the file holds `storedBytes` including them. */
  addStored(chunks: readonly Uint8Array[], storedBytes: number): void;
}

/**
 * From this size on a blob is hashed by the worker. Below it the hash costs the main thread less
 * than half a millisecond, and a message to a worker and back would delay the blob's last bytes.
 */
export const BACKGROUND_HASH_FROM_BYTES = 1024 * 1024;

/** Bytes of one read; a small blob is read back in a few. */
const READ_BYTES = 256 * 1024;

/**
 * The hash of a small blob being written. The bytes are hashed as they pass; for the digest, the
 * content of the file is read back and hashed, because the file is what gets published.
 */
export class ReadBackHash implements StoredHash {
  readonly #algorithm: DigestAlgorithm;
  readonly #file: SharedFile;
  readonly #passed: InlineHash;
  #storedBytes = 0;
  /** Bytes that are in no file were fed, so the file will not be published. */
  #hasPassedBytes = false;

  /** @param file stays open until the hash is closed */
  constructor(algorithm: DigestAlgorithm, file: SharedFile) {
    this.#algorithm = algorithm;
    this.#file = file;
    this.#passed = new InlineHash(algorithm);
  }

  addStored(chunks: readonly Uint8Array[], storedBytes: number): void {
    for (const chunk of chunks) this.#passed.update(chunk);
    this.#storedBytes = storedBytes;
  }

  update(bytes: Uint8Array): void {
    this.#hasPassedBytes = true;
    this.#passed.update(bytes);
  }

  fork(): ContentHash {
    return this.#passed.fork();
  }

  async digest(): Promise<Digest> {
    const passed = await this.#passed.digest();
    if (this.#hasPassedBytes) return passed;
    const hash = createDigestHash(this.#algorithm);
    const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, this.#storedBytes));
    try {
      for (let at = 0; at < this.#storedBytes; at += buffer.length) {
        const length = Math.min(buffer.length, this.#storedBytes - at);
        await this.#file.readFully(buffer, length, at);
        hash.update(buffer.subarray(0, length));
      }
    } catch (error) {
      // A failing disk must not cut off a pull. A file that was truncated has another content.
      if (!(error instanceof StorageError) || error.code !== "EOF") {
        return passed;
      }
    }
    return digestSoFar(this.#algorithm, hash);
  }

  close(): void {
    this.#passed.close();
  }
}
