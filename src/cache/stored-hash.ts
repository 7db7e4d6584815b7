import assert from "node:assert/strict";
import type { Hash } from "node:crypto";
import {
  createDigestHash,
  type Digest,
  type DigestAlgorithm,
  digestSoFar,
} from "../oci/digest.ts";
import { StorageError } from "./blob-store.ts";
import type { ContentHash } from "./content-hash.ts";

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
