import type { Digest } from "../oci/digest.ts";
import type {
  BlobReader,
  BlobStore,
  BlobWriter,
  FillTarget,
  WriteKey,
  WriteTarget,
} from "./blob-store.ts";

/** Idle blobs that are reserved for removal: no other caller reads or writes them until the release. */
export interface Claim<Key extends WriteKey> {
  /** The subset of the requested keys that was neither read nor written. */
  readonly keys: readonly Key[];
  release(): void;
}

/** A store that tracks open readers and writers, so that nothing in use is removed. */
export interface TrackedBlobStore extends BlobStore {
  /** Whether the blob or upload has an open reader or writer. */
  isBusy(key: WriteKey): boolean;
  /**
   * Reserves the idle ones among these keys. Until the release they are absent to readers, and
   * writers wait.
   */
  claim<Key extends WriteKey>(keys: readonly Key[]): Claim<Key>;
  /**
   * Waits until no caller claims the digest, then keeps it from being claimed.
   *
   * @returns the release, which may be called more than once
   */
  hold(digest: Digest): Promise<() => void>;
}

/**
 * @param onPublished called after each published blob, before its index row is written
 * @param isRecorded whether the index has the blob; a fill then does not continue its file
 */
export function trackBlobStore(
  store: BlobStore,
  onPublished: () => void = () => undefined,
  isRecorded: (digest: Digest) => Promise<boolean> = () =>
    Promise.resolve(false),
): TrackedBlobStore {
  const holds = new Holds();
  const publishFile = store.publishFile?.bind(store);
  return {
    ...(publishFile && {
      async publishFile(digest, path, signal, onBytes) {
        const release = await holds.holdWhenFree(digest);
        try {
          const result = await publishFile(digest, path, signal, onBytes);
          if ("sizeBytes" in result && result.kind !== "wrong") onPublished();
          return result;
        } finally {
          release();
        }
      },
    }),
    isBusy: (key) => holds.isHeld(key),
    claim: (keys) => holds.claim(keys),
    hold: (digest) => holds.holdWhenFree(digest),

    async open(digest, sizeBytes) {
      const release = holds.holdUnlessClaimed(digest);
      if (release === undefined) return undefined;
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
      const release = holds.holdUnlessClaimed(digest);
      if (release === undefined) return undefined;
      try {
        return await store.read(digest, sizeBytes);
      } finally {
        release();
      }
    },
    async verify(digest, sizeBytes, signal) {
      const release = holds.holdUnlessClaimed(digest);
      if (release === undefined) return undefined;
      try {
        return await store.verify(digest, sizeBytes, signal);
      } finally {
        release();
      }
    },
    async put(digest, bytes) {
      const release = await holds.holdWhenFree(digest);
      try {
        await store.put(digest, bytes);
      } finally {
        release();
      }
      onPublished();
    },
    beginWrite: (target) =>
      beginWrite(target, { store, holds, onPublished, isRecorded }),
    readUploadSize: (id) => store.readUploadSize(id),
    createHash: (algorithm, expectedBytes) =>
      store.createHash(algorithm, expectedBytes),
    list: (visit) => store.list(visit),
    remove: (digest) => store.remove(digest),
    probe: () => store.probe(),
    close: () => store.close(),
  };
}

interface WriteParts {
  readonly store: BlobStore;
  readonly holds: Holds;
  readonly onPublished: () => void;
  readonly isRecorded: (digest: Digest) => Promise<boolean>;
}

async function beginWrite(
  target: WriteTarget,
  { store, holds, onPublished, isRecorded }: WriteParts,
): Promise<BlobWriter> {
  const key = keyOf(target);
  const adopting = adoptingFill(target);
  if (adopting !== undefined) {
    // A push may publish the same digest, and records its row a moment later.
    const claim = holds.claim([adopting.digest]);
    try {
      if (
        claim.keys.length > 0 &&
        !(await isRecorded(adopting.digest).catch(() => true))
      ) {
        const writer = await store.beginWrite(target);
        const release = holds.hold(key);
        return new HeldWriter(writer, { key, holds, release, onPublished });
      }
    } finally {
      claim.release();
    }
  }
  const release = await holds.holdWhenFree(key);
  try {
    const writer = await store.beginWrite(withoutAdoption(target));
    return new HeldWriter(writer, { key, holds, release, onPublished });
  } catch (error) {
    release();
    throw error;
  }
}

/** Returns the target if it may continue a published file whose upstream is unknown. */
function adoptingFill(target: WriteTarget): FillTarget | undefined {
  return target.kind === "fill" && target.source?.mayAdopt === true
    ? target
    : undefined;
}

function withoutAdoption(target: WriteTarget): WriteTarget {
  return target.kind === "fill" && target.source !== undefined
    ? { ...target, source: { ...target.source, mayAdopt: false } }
    : target;
}

function keyOf(target: WriteTarget): WriteKey {
  return target.kind === "fill" ? target.digest : target.id;
}

/** Counts the readers and writers of each key, and keeps the claims. */
class Holds {
  readonly #holders = new Map<WriteKey, number>();
  readonly #claims = new Map<WriteKey, Promise<void>>();

  isHeld(key: WriteKey): boolean {
    return this.#holders.has(key);
  }

  /** @returns the release, which may be called more than once */
  hold(key: WriteKey): () => void {
    const holders = this.#holders;
    holders.set(key, (holders.get(key) ?? 0) + 1);
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      const left = (holders.get(key) ?? 1) - 1;
      if (left === 0) holders.delete(key);
      else holders.set(key, left);
    };
  }

  holdUnlessClaimed(key: WriteKey): (() => void) | undefined {
    return this.#claims.has(key) ? undefined : this.hold(key);
  }

  /** Waits until the key is not claimed. */
  async holdWhenFree(key: WriteKey): Promise<() => void> {
    for (;;) {
      const claim = this.#claims.get(key);
      if (claim === undefined) return this.hold(key);
      await claim;
    }
  }

  claim<Key extends WriteKey>(keys: readonly Key[]): Claim<Key> {
    const claims = this.#claims;
    const idle = keys.filter(
      (key) => !this.#holders.has(key) && !claims.has(key),
    );
    const { promise, resolve } = Promise.withResolvers<void>();
    for (const key of idle) claims.set(key, promise);
    return {
      keys: idle,
      release: () => {
        for (const key of idle) {
          if (claims.get(key) === promise) claims.delete(key);
        }
        resolve();
      },
    };
  }
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
    return this.#reader.sendTo?.(socket, position, maxBytes);
  }

  close(): Promise<void> {
    this.#release();
    return this.#reader.close();
  }
}

interface HeldWriterParts {
  readonly key: WriteKey;
  readonly holds: Holds;
  readonly release: () => void;
  readonly onPublished: () => void;
}

/** Holds its key until it has ended; each of its readers holds the key until it is closed. */
class HeldWriter implements BlobWriter {
  readonly #writer: BlobWriter;
  readonly #parts: HeldWriterParts;

  constructor(writer: BlobWriter, parts: HeldWriterParts) {
    this.#writer = writer;
    this.#parts = parts;
  }

  get writtenBytes(): number {
    return this.#writer.writtenBytes;
  }

  get hash(): BlobWriter["hash"] {
    return this.#writer.hash;
  }

  append(chunks: readonly Uint8Array[]): Promise<void> {
    return this.#writer.append(chunks);
  }

  async openReader(): Promise<BlobReader> {
    const reader = await this.#writer.openReader();
    return new HeldReader(reader, this.#parts.holds.hold(this.#parts.key));
  }

  async commit(digest: Digest): Promise<void> {
    const { key, holds, release, onPublished } = this.#parts;
    // An upload learns its digest only now, and a removal of that blob may be in progress.
    const releaseDigest =
      digest === key ? undefined : await holds.holdWhenFree(digest);
    try {
      await this.#writer.commit(digest);
    } finally {
      release();
      releaseDigest?.();
    }
    onPublished();
  }

  async suspend(): Promise<void> {
    try {
      await this.#writer.suspend();
    } finally {
      this.#parts.release();
    }
  }

  async abort(): Promise<void> {
    try {
      await this.#writer.abort();
    } finally {
      this.#parts.release();
    }
  }
}
