import { LRUCache } from "lru-cache";
import type { Digest } from "../oci/digest.ts";

const DEFAULT_MAX_BYTES = 32 * 1024 * 1024;
/** Counts the key, the objects and the slots of the LRU cache. */
const ENTRY_OVERHEAD_BYTES = 512;

/**
 * Keeps the bytes of recently used manifests in memory. The index decides which repository may serve
 * them, and with which media type.
 */
export class HotManifests {
  readonly #cache: LRUCache<Digest, Buffer>;

  /** @param maxBytes limit for all entries together, including their overhead */
  constructor(maxBytes: number = DEFAULT_MAX_BYTES) {
    this.#cache = new LRUCache({
      maxSize: maxBytes,
      sizeCalculation: (bytes) => bytes.length + ENTRY_OVERHEAD_BYTES,
    });
  }

  /** Returns the total size of the entries, including their overhead. */
  get sizeBytes(): number {
    return this.#cache.calculatedSize;
  }

  get(digest: Digest): Buffer | undefined {
    return this.#cache.get(digest);
  }

  /** Adds a manifest, unless it is larger than the limit. */
  set(digest: Digest, bytes: Buffer): void {
    // A view would keep its whole underlying buffer in memory.
    const isWhole = bytes.length === bytes.buffer.byteLength;
    this.#cache.set(digest, isWhole ? bytes : exactCopy(bytes));
  }

  delete(digest: Digest): void {
    this.#cache.delete(digest);
  }
}

function exactCopy(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}
