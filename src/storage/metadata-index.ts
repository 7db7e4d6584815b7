import type { Digest } from "../oci/digest.ts";
import type { RepositoryKey, Tag } from "../oci/reference.ts";
import type { BlobLinks, BlobRecords, FillIntents } from "./blob-index.ts";
import type { ImageGraph } from "./graph-index.ts";
import type { StoredReferrers, StoredTagLists } from "./list-index.ts";
import type { HostedIndex } from "./hosted-index.ts";
import type { KeptRecords } from "./kept-records.ts";
import type { ImageIndex, PinIndex, RetentionIndex } from "./root-index.ts";
import type { TagIndex } from "./tag-index.ts";

/** Counts of stored content. Manifests are blobs too and count as both. */
export interface IndexTotals {
  readonly blobBytes: number;
  readonly blobs: number;
  readonly manifests: number;
  readonly tags: number;
  /** Bytes of the stored lists of referrers and of tags. */
  readonly listBytes: number;
}

/** Returns the bytes stored for content, as the limits and `storage_bytes` count them. */
export function storedBytes({ blobBytes, listBytes }: IndexTotals): number {
  return blobBytes + listBytes;
}

/** Times of last use. They are written in batches, at most 5 s late. The methods never throw. */
export interface UseIndex {
  touchBlob(digest: Digest, atMs: number): void;
  touchTag(key: RepositoryKey, tag: Tag, atMs: number): void;
  /** Records a request for a manifest, as a use of every root of the repository above it. */
  touchManifest(key: RepositoryKey, digest: Digest, atMs: number): void;
  /** Writes the pending uses, in slices with a turn of the event loop between two of them. */
  settleUses(): Promise<void>;
}

/** The state of the index as a whole. */
export interface IndexState {
  totals(): Promise<IndexTotals>;
  /** Resolves if the index can answer. */
  probe(): Promise<void>;
  /** Writes what is pending and closes the index. */
  close(): Promise<void>;
}

/**
 * Metadata of the stored bytes. Only implementations and the composition root name the whole;
 * every other user names the parts that it calls. Every method is one transaction.
 *
 * @throws IndexError from any method if the index can't answer; nothing was changed then
 */
export interface MetadataIndex
  extends
    BlobLinks,
    BlobRecords,
    FillIntents,
    HostedIndex,
    ImageGraph,
    ImageIndex,
    IndexState,
    KeptRecords,
    PinIndex,
    StoredReferrers,
    RetentionIndex,
    TagIndex,
    StoredTagLists,
    UseIndex {}

export class IndexError extends Error {
  /** Another process held the index's lock for too long; the index itself is intact. */
  readonly isLocked: boolean;

  constructor(
    message: string,
    options: { cause?: unknown; isLocked?: boolean } = {},
  ) {
    super(message, options);
    this.name = "IndexError";
    this.isLocked = options.isLocked === true;
  }
}

/** The storage root is not available, and so the index is not either. */
export class IndexAwayError extends IndexError {
  constructor(method: string) {
    super(`${method}: the storage root is not available`);
    this.name = "IndexAwayError";
  }
}

/**
 * The index of hosted repositories is being restored from the journal after a crash, or after the
 * index was lost: neither a read nor a write can be answered yet. A request fails with it after it
 * waited 15 s; the answer is 503 `UNAVAILABLE` with `Retry-After`.
 */
export class IndexRestoringError extends IndexError {
  constructor() {
    super("the index of hosted repositories is being restored");
    this.name = "IndexRestoringError";
  }
}
