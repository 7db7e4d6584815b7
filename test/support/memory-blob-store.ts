import assert from "node:assert/strict";
import {
  type BlobReader,
  type BlobStore,
  type BlobWriter,
  StorageError,
  type WriteTarget,
} from "../../src/storage/blob-store.ts";
import type { ContentHash } from "../../src/storage/content-hash.ts";
import { InlineHash } from "../../src/storage/inline-hash.ts";
import {
  type Digest,
  digestAlgorithm,
  digestOf,
} from "../../src/oci/digest.ts";

/** A blob store without a medium, for developing its users and its contract. */
export function createMemoryBlobStore(): BlobStore {
  const blobs = new Map<Digest, Buffer>();
  const suspended = new Map<string, Buffer>();

  const find = (digest: Digest, sizeBytes: number): Buffer | undefined => {
    const bytes = blobs.get(digest);
    return bytes?.length === sizeBytes ? bytes : undefined;
  };
  return {
    open(digest, sizeBytes) {
      const bytes = find(digest, sizeBytes);
      return Promise.resolve(
        bytes === undefined ? undefined : new MemoryReader({ bytes }),
      );
    },
    read: (digest, sizeBytes) => Promise.resolve(find(digest, sizeBytes)),
    async verify(digest, sizeBytes, signal) {
      signal.throwIfAborted();
      const bytes = find(digest, sizeBytes);
      if (bytes === undefined) return undefined;
      const isRight = digestOf(bytes, digestAlgorithm(digest)) === digest;
      return isRight ? "right" : "wrong";
    },
    async put(digest, bytes) {
      blobs.set(digest, Buffer.from(bytes));
    },
    async beginWrite(target) {
      const place = placeOf(target);
      if (target.kind === "fill" && target.source?.mayAdopt !== false) {
        const { digest } = target;
        const published = blobs.get(digest);
        const unknown = placeOf({ kind: "fill", digest });
        const left = suspended.get(unknown);
        if (published !== undefined) {
          suspended.set(place, published);
          blobs.delete(digest);
        } else if (left !== undefined && !suspended.has(place)) {
          suspended.set(place, left);
          suspended.delete(unknown);
        }
      }
      const left = suspended.get(place) ?? Buffer.alloc(0);
      suspended.delete(place);
      const limitBytes = target.expectedBytes ?? Infinity;
      const algorithm =
        target.kind === "fill"
          ? digestAlgorithm(target.digest)
          : target.algorithm;
      return new MemoryWriter({
        bytes: left.length > limitBytes ? Buffer.alloc(0) : left,
        hash: new InlineHash(algorithm),
        onCommit: (digest, bytes) => blobs.set(digest, bytes),
        onSuspend: (bytes) => suspended.set(place, bytes),
      });
    },
    readUploadSize: (id) => Promise.resolve(suspended.get(id)?.length ?? 0),
    createHash: (algorithm) => new InlineHash(algorithm),
    async list(visit) {
      await visit(
        [...blobs].map(([digest, { length }]) => ({
          digest,
          sizeBytes: length,
        })),
      );
    },
    async remove(digest) {
      blobs.delete(digest);
    },
    probe: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
}

/** The key of the bytes that a suspended write leaves for the next write of its target. */
function placeOf(target: WriteTarget): string {
  return target.kind === "fill"
    ? `${target.digest} ${target.source?.upstream ?? ""}`
    : target.id;
}

/** Shared by a writer and its readers, which see later appends. */
interface Extent {
  bytes: Buffer;
}

class MemoryReader implements BlobReader {
  readonly #extent: Extent;
  #isClosed = false;

  constructor(extent: Extent) {
    this.#extent = extent;
  }

  get sizeBytes(): number {
    return this.#extent.bytes.length;
  }

  read(target: Uint8Array, position: number): Promise<number> {
    if (this.#isClosed) {
      return Promise.reject(new StorageError("read", "EBADF"));
    }
    const { bytes } = this.#extent;
    return Promise.resolve(
      position < bytes.length ? bytes.copy(target, 0, position) : 0,
    );
  }

  async close(): Promise<void> {
    this.#isClosed = true;
  }
}

interface MemoryWriterParts {
  readonly bytes: Buffer;
  readonly hash: ContentHash;
  readonly onCommit: (digest: Digest, bytes: Buffer) => void;
  readonly onSuspend: (bytes: Buffer) => void;
}

class MemoryWriter implements BlobWriter {
  readonly #parts: MemoryWriterParts;
  readonly #extent: Extent;
  #hasEnded = false;

  constructor(parts: MemoryWriterParts) {
    this.#parts = parts;
    this.#extent = { bytes: parts.bytes };
    parts.hash.update(parts.bytes);
  }

  get writtenBytes(): number {
    return this.#extent.bytes.length;
  }

  get hash(): ContentHash {
    return this.#parts.hash;
  }

  async append(chunks: readonly Uint8Array[]): Promise<void> {
    assert(!this.#hasEnded, "an ended writer takes no bytes");
    for (const chunk of chunks) this.hash.update(chunk);
    this.#extent.bytes = Buffer.concat([this.#extent.bytes, ...chunks]);
  }

  async openReader(): Promise<BlobReader> {
    if (this.#hasEnded) throw new StorageError("open", "ECLOSED");
    return new MemoryReader(this.#extent);
  }

  async commit(digest: Digest): Promise<void> {
    this.#end();
    this.#parts.onCommit(digest, this.#extent.bytes);
  }

  async suspend(): Promise<void> {
    this.#end();
    if (this.writtenBytes > 0) this.#parts.onSuspend(this.#extent.bytes);
  }

  async abort(): Promise<void> {
    this.#end();
  }

  #end(): void {
    assert(!this.#hasEnded, "a writer ends once");
    this.#hasEnded = true;
    this.hash.close();
  }
}
