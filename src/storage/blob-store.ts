import type { Digest, DigestAlgorithm } from "../oci/digest.ts";
import type { ContentHash } from "./content-hash.ts";

/** A failure of the medium that holds the bytes: full, broken, read-only, out of file descriptors. */
export class StorageError extends Error {
  /** The operation that failed, as in `write`. */
  readonly operation: string;
  /** The system's code, as in `ENOSPC`; `EUNKNOWN` if the error has none. */
  readonly code: string;

  constructor(operation: string, code: string, options?: { cause?: unknown }) {
    super(`storage: ${operation} failed with ${code}`, options);
    this.name = "StorageError";
    this.operation = operation;
    this.code = code;
  }
}

/** An open blob. Reads may run concurrently. The caller that opened it closes it once. */
export interface BlobReader {
  readonly sizeBytes: number;
  /** The time of the last write of its bytes in epoch milliseconds, if the store knows it. */
  readonly writtenAtMs?: number | undefined;
  /**
   * Fills `target`, or the part of it up to the end of the blob.
   *
   * @returns bytes read; 0 only at the end
   */
  read(target: Uint8Array, position: number): Promise<number>;
  /**
   * Sends bytes to a socket of this process, given by its descriptor, without waiting and without
   * passing through the socket's stream. Absent in stores that can't do this.
   *
   * @returns how many bytes the socket accepted, 0 if it accepts none now; undefined if the bytes
   *   must be read and written instead
   */
  sendTo?(
    socket: number,
    position: number,
    maxBytes: number,
  ): number | undefined;
  close(): Promise<void>;
}

/**
 * The bytes of one blob while they are written. Appends are sequential; reads may run at any time.
 * It ends by exactly one call of {@link commit}, {@link suspend} or {@link abort}. Reads in progress
 * and open readers from {@link openReader} keep working after any of them.
 */
export interface BlobWriter {
  /** Bytes that are stored and readable; at the start, those that an earlier write left. */
  readonly writtenBytes: number;
  /**
   * Covers everything that is stored. After a failed append the caller feeds it the bytes after
   * {@link writtenBytes}. It is closed when the writer ends; a caller that needs it longer forks it
   * before.
   */
  readonly hash: ContentHash;
  /** @throws StorageError; {@link writtenBytes} then says how much was stored nevertheless */
  append(chunks: readonly Uint8Array[]): Promise<void>;
  /** @throws StorageError */
  openReader(): Promise<BlobReader>;
  /**
   * Publishes the bytes as the blob of this digest, durably. An equal blob is replaced.
   *
   * @param digest computed by the caller from {@link hash}; of a fill, the digest of its target
   * @throws StorageError; the bytes are then gone
   */
  commit(digest: Digest): Promise<void>;
  /** Keeps the bytes for the next {@link BlobStore.beginWrite} of the same target. Never throws. */
  suspend(): Promise<void>;
  /** Removes the bytes. Never throws: what can't be removed now is removed at the next start. */
  abort(): Promise<void>;
}

/** The origin of the bytes of a fill. */
export interface FillSource {
  /** The upstream's key in the configuration. */
  readonly upstream: string;
  /** Whether this fill may continue bytes whose upstream is unknown. */
  readonly mayAdopt: boolean;
}

/** A blob whose digest is known before its bytes arrive. */
export interface FillTarget {
  readonly kind: "fill";
  readonly digest: Digest;
  /** If known, a small blob is hashed as it passes and a large one in the background. */
  readonly expectedBytes?: number | undefined;
  /** Absent: the upstream is unknown, and bytes that an earlier fill left are adopted. */
  readonly source?: FillSource | undefined;
}

/** A blob whose digest is known only when all its bytes have arrived. */
export interface UploadTarget {
  readonly kind: "upload";
  readonly id: UploadId;
  /** The algorithm of the digest that it will be committed under. */
  readonly algorithm: DigestAlgorithm;
  readonly expectedBytes?: number | undefined;
}

export type WriteTarget = FillTarget | UploadTarget;

declare const uploadId: unique symbol;

/** Names one upload: 16 to 64 of the characters `a-z`, `0-9` and `-`. */
export type UploadId = string & { readonly [uploadId]: true };

/** Starts the ids of blobs that are read from a bundle: their bytes are not resumed. */
export const IMPORT_ID_PREFIX = "import-";

/** @returns undefined for any other text; also for a digest, which has a colon */
export function parseUploadId(text: string): UploadId | undefined {
  return /^[a-z0-9-]{16,64}$/.test(text) ? (text as UploadId) : undefined;
}

/** Identifies a write, whose digest may still be unknown. */
export type WriteKey = Digest | UploadId;

/** A published blob, as {@link BlobStore.list} reports it. */
export interface StoredBlob {
  readonly digest: Digest;
  readonly sizeBytes: number;
}

/** The result of comparing a blob's bytes with its digest. `unreadable`: the medium does not return them. */
export type BlobVerdict = "right" | "wrong" | "unreadable";

/**
 * The result of {@link BlobStore.publishFile}.
 * - `absent`: the path has no regular file
 * - `wrong`: its bytes have another digest
 * - `unreadable`: it can't be read, as `code` says
 */
export type PublishedFile =
  | { readonly kind: "linked" | "copied"; readonly sizeBytes: number }
  | { readonly kind: "absent" }
  | { readonly kind: "wrong"; readonly sizeBytes: number }
  | { readonly kind: "unreadable"; readonly code: string };

/**
 * Content-addressed bytes, without any notion of repositories, tags or times.
 * Every published blob was hashed before.
 */
export interface BlobStore {
  /**
   * Opens a published blob.
   *
   * @param sizeBytes the size in the index
   * @returns undefined if the blob is absent or of another size
   * @throws StorageError if it may exist but can't be opened now (out of file descriptors, an I/O error)
   */
  open(digest: Digest, sizeBytes: number): Promise<BlobReader | undefined>;
  /** Returns all bytes of a small published blob; otherwise like {@link open}. */
  read(digest: Digest, sizeBytes: number): Promise<Buffer | undefined>;
  /**
   * Compares a published blob with its digest; a large one on another thread.
   *
   * @param signal checked between steps of 64 MiB
   * @returns undefined if the blob is absent or of another size
   * @throws StorageError if its bytes can't be judged now; the signal's reason
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
   * Starts a write: empty, or with the bytes that a suspended write of the same target left. With
   * `mayAdopt` a fill also continues the bytes of a published blob that is not in the index, and
   * those of a suspended fill from an unknown upstream. The caller makes sure that each target has
   * at most one open writer.
   *
   * @throws StorageError
   */
  beginWrite(target: WriteTarget): Promise<BlobWriter>;
  /**
   * Publishes a file of another program as a blob after comparing its bytes with the digest: by a hard
   * link if the system allows one, otherwise by a copy. The file itself is never changed, also not
   * later. Absent in stores that are not on a file system.
   *
   * @param path absolute; the caller makes sure that no other call publishes the digest
   * @param signal checked between steps of some MiB
   * @param onBytes called after each step with the bytes that were read in it
   * @throws StorageError if the blob can't be stored; the signal's reason
   */
  publishFile?(
    digest: Digest,
    path: string,
    signal: AbortSignal,
    onBytes?: (bytes: number) => void,
  ): Promise<PublishedFile>;
  /**
   * Returns the bytes that a suspended upload left; 0 if there are none.
   *
   * @throws StorageError
   */
  readUploadSize(id: UploadId): Promise<number>;
  /** Returns a hash for bytes that pass through and are not stored. */
  createHash(
    algorithm: DigestAlgorithm,
    expectedBytes: number | undefined,
  ): ContentHash;
  /**
   * Visits all published blobs in pages of a few hundred, in no particular order. A blob that is
   * published or removed meanwhile may be missing.
   *
   * @throws StorageError; what `visit` throws
   */
  list(
    visit: (page: readonly StoredBlob[]) => Promise<void> | void,
  ): Promise<void>;
  /** Removes a blob; an absent one is ignored. @throws StorageError */
  remove(digest: Digest): Promise<void>;
  /** Writes, syncs and removes a few bytes to find out whether writes work now. @throws StorageError */
  probe(): Promise<void>;
  close(): Promise<void>;
}
