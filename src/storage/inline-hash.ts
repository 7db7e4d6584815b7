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

/** Hashes on the calling thread, as the bytes pass. */
export class InlineHash implements ContentHash {
  readonly #algorithm: DigestAlgorithm;
  readonly #hash: Hash;
  #isClosed = false;

  constructor(algorithm: DigestAlgorithm, hash = createDigestHash(algorithm)) {
    this.#algorithm = algorithm;
    this.#hash = hash;
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
