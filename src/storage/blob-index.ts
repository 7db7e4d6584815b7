import type { ChildDescriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { RepositoryKey } from "../oci/reference.ts";

/**
 * A stored blob. Only manifests have a `mediaType`: the one that the repository or upstream of the
 * lookup gives, because upstreams may serve the same manifest under different media types.
 */
export interface BlobRow {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly mediaType: string | undefined;
  /** When its bytes were received from the upstream, in epoch milliseconds. */
  readonly storedAtMs: number;
  /** When its bytes were last compared with the digest, in epoch milliseconds. */
  readonly verifiedAtMs: number;
}

/** A stored blob and everything learned with it; written in one transaction. */
export interface BlobRecord {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly storedAtMs: number;
  /** Present if the blob is a manifest. */
  readonly manifest?: {
    readonly mediaType: string;
    readonly children: readonly ChildDescriptor[];
    readonly subject: Digest | undefined;
  };
}

/** Verified bytes that are about to be published, with everything that their row needs. */
export interface FillIntent {
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** Present if the bytes are a manifest. */
  readonly mediaType?: string;
}

export interface NotedIntent extends FillIntent {
  readonly key: RepositoryKey;
  /** Of a push to a hosted repository: bytes without a row are removed. */
  readonly isHosted?: boolean;
}

/** Blobs, and the repositories that may serve them. */
export interface BlobLinks {
  /** Returns the blob's row if the blob is stored and linked to the repository. */
  getLinkedBlob(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<BlobRow | undefined>;
  /**
   * Returns the row of {@link getLinkedBlob} from memory, without a promise.
   *
   * @returns undefined if {@link getLinkedBlob} must be called; never throws
   */
  recallLinkedBlob(key: RepositoryKey, digest: Digest): BlobRow | undefined;
  /** Returns the blob's row if it is stored and linked to any repository of the upstream. */
  getUpstreamBlob(
    upstream: string,
    digest: Digest,
  ): Promise<BlobRow | undefined>;
  /**
   * Links a stored blob to a repository; does nothing if the blob is not stored.
   *
   * @param mediaType the media type under which that repository serves the manifest; absent: the
   *   stored one
   */
  link(key: RepositoryKey, digest: Digest, mediaType?: string): Promise<void>;
  /** Lists repositories with at least one link, in ASCII order of `upstream/repository` after `last`. */
  listRepositories(
    limit: number,
    last: string | undefined,
  ): Promise<readonly RepositoryKey[]>;
}

/** Rows of blobs, independent of repositories. */
export interface BlobRecords {
  getBlob(digest: Digest): Promise<BlobRow | undefined>;
  /** Writes the blob's row, its link and, for a manifest, its edges. Settles the blob's intent. */
  recordBlob(key: RepositoryKey, blob: BlobRecord): Promise<void>;
  /** Writes the row and the edges of a blob that was found on disk, without a link to any repository. */
  adoptBlob(blob: BlobRecord): Promise<void>;
  /** Records that the bytes of stored blobs matched their digests. */
  noteVerified(digests: readonly Digest[], atMs: number): Promise<void>;
  /** Drops a blob whose bytes are gone: its row, links, edges and the tags that point to it. */
  forgetBlob(digest: Digest): Promise<void>;
}

/** Intents make a blob recoverable if the process dies between publishing its bytes and writing its row. */
export interface FillIntents {
  /** Records an intent; {@link BlobRecords.recordBlob} settles it. */
  beginFill(key: RepositoryKey, blob: FillIntent): Promise<void>;
  /** Removes the intent that {@link beginFill} recorded. */
  dropIntent(digest: Digest): Promise<void>;
  /** Lists the intents that are not settled. */
  listIntents(): Promise<readonly NotedIntent[]>;
}
