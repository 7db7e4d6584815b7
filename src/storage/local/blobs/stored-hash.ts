import assert from "node:assert/strict";
import type { Hash } from "node:crypto";
import {
  createDigestHash,
  type Digest,
  type DigestAlgorithm,
  digestSoFar,
} from "../../../oci/digest.ts";
import { StorageError } from "../../blob-store.ts";
import type { ContentHash } from "../../content-hash.ts";
import type { SharedFile } from "./shared-file.ts";

/** The hash of a partial blob, which is told what was stored beside what passes by. */
export interface StoredHash extends ContentHash {
  /** `chunks` were stored; the file holds `storedBytes` with them. */
  addStored(chunks: readonly Uint8Array[], storedBytes: number): void;
}

/**
 * From this size on a blob is hashed by the worker. Below it the hash costs the main thread less
 * than half a millisecond, and a message to a worker and back would hold up the blob's last bytes.
 */
export const BACKGROUND_HASH_FROM_BYTES = 1024 * 1024;

/** Hashes on the calling thread, as the bytes pass. */
export class InlineHash implements StoredHash {
  readonly #algorithm: DigestAlgorithm;
  readonly #hash: Hash;
  #isClosed = false;

  constructor(algorithm: DigestAlgorithm, hash = createDigestHash(algorithm)) {
    this.#algorithm = algorithm;
    this.#hash = hash;
  }

  addStored(chunks: readonly Uint8Array[]): void {
    for (const chunk of chunks) this.update(chunk);
  }

  update(bytes: Uint8Array): void {
    assert(!this.#isClosed, "a closed hash takes no bytes");
    this.#hash.update(bytes);
  }

  fork(): ContentHash {
    assert(!this.#isClosed, "a closed hash can't be forked");
    return new InlineHash(this.#algorithm, this.#hash.copy());
  }

  digest(): Promise<Digest> {
    return this.#isClosed
      ? Promise.reject(new StorageError("hash", "ECLOSED"))
      : Promise.resolve(digestSoFar(this.#algorithm, this.#hash));
  }

  close(): void {
    this.#isClosed = true;
  }
}

/** Of one read; a small blob is read back in a few. */
const READ_BYTES = 256 * 1024;

/**
 * The hash of a small partial: the bytes are hashed as they pass, and what the file holds of them is
 * read back and hashed for the digest, since it is the file that is published.
 */
export class ReadBackHash implements StoredHash {
  readonly #algorithm: DigestAlgorithm;
  readonly #file: SharedFile;
  readonly #passed: InlineHash;
  #storedBytes = 0;
  /** Bytes that are in no file were fed: the file will not be published. */
  #hasPassedBytes = false;

  /** @param file open as long as the hash is not closed */
  constructor(algorithm: DigestAlgorithm, file: SharedFile) {
    this.#algorithm = algorithm;
    this.#file = file;
    this.#passed = new InlineHash(algorithm);
  }

  addStored(chunks: readonly Uint8Array[], storedBytes: number): void {
    this.#passed.addStored(chunks);
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
      // A disk that fails is no reason to cut a pull; a file that was cut is another file.
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
