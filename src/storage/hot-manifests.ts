import { LRUCache } from "lru-cache";
import type { Digest } from "../oci/digest.ts";

const DEFAULT_MAX_BYTES = 32 * 1024 * 1024;
/** Key, objects and the cache's own slots. */
const ENTRY_OVERHEAD_BYTES = 512;

/** Bytes of manifests that were used last, in front of the store; which repository may have them, and as what type, is the index's to say. */
export class HotManifests {
  readonly #cache: LRUCache<Digest, Buffer>;

  /** @param maxBytes of all entries together, their overhead included */
  constructor(maxBytes: number = DEFAULT_MAX_BYTES) {
    this.#cache = new LRUCache({
      maxSize: maxBytes,
      sizeCalculation: (bytes) => bytes.length + ENTRY_OVERHEAD_BYTES,
    });
  }

  /** What the entries count for. */
  get sizeBytes(): number {
    return this.#cache.calculatedSize;
  }

  get(digest: Digest): Buffer | undefined {
    return this.#cache.get(digest);
  }

  /** One that is larger than the bound is not kept. */
  set(digest: Digest, bytes: Buffer): void {
    // A view would keep the whole of what it is a view of.
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
