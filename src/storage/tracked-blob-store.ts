import type { Digest } from "../oci/digest.ts";
import type { BlobReader, BlobStore, PartialBlob } from "./blob-store.ts";

/** Blobs that are on their way out and that nobody else may touch until they are released. */
export interface Claim {
  /** Those of the asked that nobody reads or fills. */
  readonly digests: readonly Digest[];
  release(): void;
}

/** A store that knows what is open, so that nothing being read or filled is taken away. */
export interface TrackedBlobStore extends BlobStore {
  /** Somebody reads the blob, or a fill writes it. */
  isBusy(digest: Digest): boolean;
  /**
   * Takes idle blobs out of everybody's reach: until the release they are absent to readers, and
   * whoever wants to write one waits.
   */
  claim(digests: readonly Digest[]): Claim;
}

/** @param onPublished called after each blob that was published, its index row not yet written */
export function trackBlobStore(
  store: BlobStore,
  onPublished: () => void = () => undefined,
): TrackedBlobStore {
  const holders = new Map<Digest, number>();
  const claims = new Map<Digest, Promise<void>>();

  const hold = (digest: Digest): (() => void) => {
    holders.set(digest, (holders.get(digest) ?? 0) + 1);
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      const left = (holders.get(digest) ?? 1) - 1;
      if (left === 0) holders.delete(digest);
      else holders.set(digest, left);
    };
  };
  const holdUnclaimed = async (digest: Digest): Promise<() => void> => {
    for (;;) {
      const claim = claims.get(digest);
      if (claim === undefined) return hold(digest);
      await claim;
    }
  };

  return {
    isBusy: (digest) => holders.has(digest),
    claim(digests) {
      const idle = digests.filter(
        (digest) => !holders.has(digest) && !claims.has(digest),
      );
      const { promise, resolve } = Promise.withResolvers<void>();
      for (const digest of idle) claims.set(digest, promise);
      return {
        digests: idle,
        release: () => {
          for (const digest of idle) {
            if (claims.get(digest) === promise) claims.delete(digest);
          }
          resolve();
        },
      };
    },

    async open(digest, sizeBytes) {
      if (claims.has(digest)) return undefined;
      const release = hold(digest);
      try {
        const reader = await store.open(digest, sizeBytes);
        if (reader !== undefined) return new HeldReader(reader, release);
        release();
        return undefined;
      } catch (error) {
        release();
        throw error;
      }
    },
    async read(digest, sizeBytes) {
      if (claims.has(digest)) return undefined;
      const release = hold(digest);
      try {
        return await store.read(digest, sizeBytes);
      } finally {
        release();
      }
    },
    async verify(digest, sizeBytes, signal) {
      if (claims.has(digest)) return undefined;
      const release = hold(digest);
      try {
        return await store.verify(digest, sizeBytes, signal);
      } finally {
        release();
      }
    },
    async put(digest, bytes) {
      const release = await holdUnclaimed(digest);
      try {
        await store.put(digest, bytes);
      } finally {
        release();
      }
      onPublished();
    },
    async openPartial(digest, expectedBytes, source) {
      const release = await holdUnclaimed(digest);
      try {
        const partial = await store.openPartial(digest, expectedBytes, source);
        return new HeldPartial(
          partial,
          release,
          () => hold(digest),
          onPublished,
        );
      } catch (error) {
        release();
        throw error;
      }
    },
    createHash: (algorithm, expectedBytes) =>
      store.createHash(algorithm, expectedBytes),
    remove: (digest) => store.remove(digest),
    probe: () => store.probe(),
    close: () => store.close(),
  };
}

class HeldReader implements BlobReader {
  readonly #reader: BlobReader;
  readonly #release: () => void;

  constructor(reader: BlobReader, release: () => void) {
    this.#reader = reader;
    this.#release = release;
  }

  get sizeBytes(): number {
    return this.#reader.sizeBytes;
  }

  get writtenAtMs(): number | undefined {
    return this.#reader.writtenAtMs;
  }

  read(target: Uint8Array, position: number): Promise<number> {
    return this.#reader.read(target, position);
  }

  sendTo(
    socket: number,
    position: number,
    maxBytes: number,
  ): number | undefined {
    return this.#reader.sendTo(socket, position, maxBytes);
  }

  close(): Promise<void> {
    this.#release();
    return this.#reader.close();
  }
}

/** Held until it has ended, and by each reader of its file until that is closed. */
class HeldPartial implements PartialBlob {
  readonly #partial: PartialBlob;
  readonly #release: () => void;
  readonly #hold: () => () => void;
  readonly #onPublished: () => void;

  constructor(
    partial: PartialBlob,
    release: () => void,
    hold: () => () => void,
    onPublished: () => void,
  ) {
    this.#partial = partial;
    this.#release = release;
    this.#hold = hold;
    this.#onPublished = onPublished;
  }

  get writtenBytes(): number {
    return this.#partial.writtenBytes;
  }

  get hash(): PartialBlob["hash"] {
    return this.#partial.hash;
  }

  append(chunks: readonly Uint8Array[]): Promise<void> {
    return this.#partial.append(chunks);
  }

  async openReader(): Promise<BlobReader> {
    return new HeldReader(await this.#partial.openReader(), this.#hold());
  }

  async publish(): Promise<void> {
    try {
      await this.#partial.publish();
    } finally {
      this.#release();
    }
    this.#onPublished();
  }

  async suspend(): Promise<void> {
    try {
      await this.#partial.suspend();
    } finally {
      this.#release();
    }
  }

  async discard(): Promise<void> {
    try {
      await this.#partial.discard();
    } finally {
      this.#release();
    }
  }
}
