import type { Digest, DigestAlgorithm } from "../oci/digest.ts";
import type { ContentHash } from "./content-hash.ts";

/** The place where bytes are kept failed: full, broken, read-only, out of file descriptors. */
export class StorageError extends Error {
  /** What was tried, as in `write`. */
  readonly operation: string;
  /** The system's code, as in `ENOSPC`; `EUNKNOWN` where it gave none. */
  readonly code: string;

  constructor(operation: string, code: string, options?: { cause?: unknown }) {
    super(`storage: ${operation} failed with ${code}`, options);
    this.name = "StorageError";
    this.operation = operation;
    this.code = code;
  }
}

/** An open blob. Reads may run side by side; it is closed once, by whoever opened it. */
export interface BlobReader {
  readonly sizeBytes: number;
  /** When its bytes were last written, in epoch milliseconds, where the store can say that. */
  readonly writtenAtMs?: number | undefined;
  /**
   * Reads into the whole of `target` or up to the end of the blob.
   *
   * @returns bytes read; 0 only at the end
   */
  read(target: Uint8Array, position: number): Promise<number>;
  /**
   * Hands bytes to a socket of this process, named by its descriptor, without a wait and past its
   * stream.
   *
   * @returns how many the socket took, 0 where it takes none now; undefined where they must be
   *   read, as with a store that can't do this
   */
  sendTo(
    socket: number,
    position: number,
    maxBytes: number,
  ): number | undefined;
  close(): Promise<void>;
}

/**
 * The bytes of one blob on their way in. Appends come one after the other, reads beside them at
 * any time. It ends by exactly one of {@link publish}, {@link suspend} and {@link discard}; reads
 * that are under way, and a reader from {@link openReader}, go on to work after any of them.
 */
export interface PartialBlob {
  /** Bytes that are stored and can be read: at the start, what an earlier fill left. */
  readonly writtenBytes: number;
  /**
   * Over everything that is stored; after a failed append it is fed by the caller with what follows
   * {@link writtenBytes}. It is closed when the partial ends: who needs it longer forks it before.
   */
  readonly hash: ContentHash;
  /** @throws StorageError; {@link writtenBytes} then tells how much of it was stored all the same */
  append(chunks: readonly Uint8Array[]): Promise<void>;
  /** @throws StorageError */
  openReader(): Promise<BlobReader>;
  /**
   * Makes the bytes the blob of the digest, durably. The caller has compared the digest.
   *
   * @throws StorageError; the partial is then gone
   */
  publish(): Promise<void>;
  /** Keeps the bytes for the next {@link BlobStore.openPartial} of this digest. */
  suspend(): Promise<void>;
  /** Never throws: what could not be removed is removed at the next start. */
  discard(): Promise<void>;
}

/** Where a partial's bytes come from. */
export interface PartialSource {
  /** The upstream's key in the configuration. */
  readonly upstream: string;
  /** Whether bytes of which the upstream is not known may be taken for this one's. */
  readonly mayAdopt: boolean;
}

/** What a blob's bytes are, compared with its digest. `unreadable`: the disk does not return them. */
export type BlobVerdict = "right" | "wrong" | "unreadable";

/**
 * Content-addressed bytes. Knows nothing of repositories, tags or times.
 * Every blob in it was hashed before it was published.
 */
export interface BlobStore {
  /**
   * Opens a published blob.
   *
   * @param sizeBytes what the index says; a blob of another size is no blob
   * @returns undefined when it is absent, or not of that size
   * @throws StorageError when it may be there but can't be opened now (out of file descriptors, an I/O error)
   */
  open(digest: Digest, sizeBytes: number): Promise<BlobReader | undefined>;
  /** The bytes of a small published blob, whole; as {@link open} else. */
  read(digest: Digest, sizeBytes: number): Promise<Buffer | undefined>;
  /**
   * Compares a published blob with its digest; a large one on another thread.
   *
   * @param signal ends it between two steps of 64 MiB
   * @returns undefined when it is absent, or not of that size
   * @throws StorageError when nothing can be said of its bytes now; the signal's reason
   */
  verify(
    digest: Digest,
    sizeBytes: number,
    signal: AbortSignal,
  ): Promise<BlobVerdict | undefined>;
  /**
   * Publishes bytes that the caller has hashed. Durable when it resolves; an equal blob is replaced.
   *
   * @throws StorageError
   */
  put(digest: Digest, bytes: Uint8Array): Promise<void>;
  /**
   * Opens the partial of a digest: empty, or with what an earlier fill of it from the same source
   * left. With `mayAdopt`, bytes of a blob that stands published but was not in the index are taken
   * over as that, and those of a partial whose source is not known. The caller makes sure that it is
   * open once at a time.
   *
   * @param expectedBytes where known: a small blob is hashed as it passes, a large one in the background
   * @param source absent: not known, and what is there is adopted
   * @throws StorageError
   */
  openPartial(
    digest: Digest,
    expectedBytes: number | undefined,
    source?: PartialSource,
  ): Promise<PartialBlob>;
  /** A hash for bytes that are passed through and not stored. */
  createHash(
    algorithm: DigestAlgorithm,
    expectedBytes: number | undefined,
  ): ContentHash;
  /** Absent is fine. @throws StorageError */
  remove(digest: Digest): Promise<void>;
  /** Writes, syncs and removes a few bytes: whether the storage takes writes now. @throws StorageError */
  probe(): Promise<void>;
  close(): Promise<void>;
}
