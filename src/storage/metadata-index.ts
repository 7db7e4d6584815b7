import type { ChildDescriptor, Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { RepositoryKey, Tag } from "../oci/reference.ts";
import type { RootIndex } from "./root-index.ts";

/**
 * A blob that is stored. `mediaType` is there for manifests only: that of the repository or the
 * upstream that was asked for, for upstreams may name one manifest differently.
 */
export interface BlobRow {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly mediaType: string | undefined;
  /** When its bytes came from the upstream, in epoch milliseconds. */
  readonly storedAtMs: number;
  /** When its bytes were last compared with the digest, in epoch milliseconds. */
  readonly verifiedAtMs: number;
}

/** What a tag pointed to. Times are epoch milliseconds. */
export interface TagRow {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly mediaType: string;
  /** When the tag was last seen to point to another digest than before. */
  readonly fetchedAtMs: number;
  /** When the upstream last confirmed it. */
  readonly verifiedAtMs: number;
  /** When the upstream first said that it has the tag no more; undefined: it has. */
  readonly goneAtMs: number | undefined;
  readonly isPinned: boolean;
}

/** A stored blob and all that became known with it; written in one transaction. */
export interface BlobRecord {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly storedAtMs: number;
  /** Present: the blob is a manifest. */
  readonly manifest?: {
    readonly mediaType: string;
    readonly children: readonly ChildDescriptor[];
    readonly subject: Digest | undefined;
  };
}

/** Verified bytes that are about to be published, with all that their row needs. */
export interface FillIntent {
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** Present: a manifest. */
  readonly mediaType?: string;
}

export interface NotedIntent extends FillIntent {
  readonly key: RepositoryKey;
}

/** An answer of the referrers API as last seen: the bytes of an image index. */
export interface ReferrersRow {
  readonly body: Buffer;
  readonly verifiedAtMs: number;
}

/** The last list of tags of a repository, encoded by its reader. Times are epoch milliseconds. */
export interface TagListRow {
  readonly body: Buffer;
  readonly fetchedAtMs: number;
}

/** Of what is stored; manifests are blobs too and count as both. */
export type BlobScope = "repository" | "upstream";

export interface IndexTotals {
  readonly blobBytes: number;
  readonly blobs: number;
  readonly manifests: number;
  readonly tags: number;
  /** Of the lists of referrers and of tags that are kept. */
  readonly listBytes: number;
}

/** All that is stored for content, as the limits and `storage_bytes` count it. */
export function storedBytes({ blobBytes, listBytes }: IndexTotals): number {
  return blobBytes + listBytes;
}

/**
 * What is known of the stored bytes: which repositories may serve them, what tags point to, which
 * manifest names which child, when each was last used. Every method is one transaction.
 *
 * @throws IndexError from any method when the index can't answer; what the caller asked is then not done
 */
export interface MetadataIndex extends RootIndex {
  /** The blob's row, where it is stored and linked in the repository. */
  getLinkedBlob(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<BlobRow | undefined>;
  /**
   * What {@link getLinkedBlob} would say, at once.
   *
   * @returns undefined where it must be asked; never throws
   */
  recallLinkedBlob(key: RepositoryKey, digest: Digest): BlobRow | undefined;
  getBlob(digest: Digest): Promise<BlobRow | undefined>;
  /** The blob's row, where it is stored and linked in any repository of the upstream. */
  getUpstreamBlob(
    upstream: string,
    digest: Digest,
  ): Promise<BlobRow | undefined>;
  /**
   * Links a stored blob to a repository; nothing happens when it is not stored.
   *
   * @param mediaType what that repository calls a manifest; absent: what was stored
   */
  link(key: RepositoryKey, digest: Digest, mediaType?: string): Promise<void>;
  /**
   * Notes that verified bytes are about to be published, so that a crash before their row is
   * written leaves nothing that nobody knows. {@link recordBlob} settles it.
   */
  beginFill(key: RepositoryKey, blob: FillIntent): Promise<void>;
  /** Takes back what {@link beginFill} noted. */
  dropIntent(digest: Digest): Promise<void>;
  /** What was begun and not settled. */
  listIntents(): Promise<readonly NotedIntent[]>;
  /** Writes the blob's row, its edges where it is a manifest, and its link. */
  recordBlob(key: RepositoryKey, blob: BlobRecord): Promise<void>;
  /** Writes the row and the edges of a blob that was found stored; no repository may serve it by that. */
  adoptBlob(blob: BlobRecord): Promise<void>;
  /** Notes that the bytes of stored blobs were compared with their digests and are right. */
  noteVerified(digests: readonly Digest[], atMs: number): Promise<void>;
  /** Drops a blob whose bytes are gone: its row, links, edges and the tags that point to it. */
  forgetBlob(digest: Digest): Promise<void>;

  getTag(key: RepositoryKey, tag: Tag): Promise<TagRow | undefined>;
  /** What {@link getTag} would say, at once. @returns undefined where it must be asked; never throws */
  recallTag(key: RepositoryKey, tag: Tag): TagRow | undefined;
  /**
   * Points the tag to a manifest that is stored, which its upstream has; `fetchedAtMs` stays where the
   * digest is the same.
   */
  putTag(
    key: RepositoryKey,
    tag: Tag,
    digest: Digest,
    verifiedAtMs: number,
  ): Promise<void>;
  removeTag(key: RepositoryKey, tag: Tag): Promise<void>;
  /** Notes that the upstream has the tag no more; {@link putTag} takes it back. */
  markTagGone(key: RepositoryKey, tag: Tag, goneAtMs: number): Promise<void>;
  /** Tags in ASCII order after `last`. */
  listTags(
    key: RepositoryKey,
    limit: number,
    last: string | undefined,
  ): Promise<readonly Tag[]>;
  /** Repositories with anything linked, in ASCII order of `upstream/repository` after `last`. */
  listRepositories(
    limit: number,
    last: string | undefined,
  ): Promise<readonly RepositoryKey[]>;

  /** What a stored manifest linked in the repository says of a child. */
  findDescriptor(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<Descriptor | undefined>;
  /**
   * Whether a pull of the manifest can be finished from the cache: a manifest with all its blobs
   * (foreign ones aside), or an index with at least one complete child. Manifests are linked in
   * the repository.
   *
   * @param blobScope where blobs must be linked: there, or anywhere in the upstream, which is
   *   enough where a manifest of the repository that names a blob links it
   */
  isComplete(
    key: RepositoryKey,
    digest: Digest,
    blobScope: BlobScope,
  ): Promise<boolean>;

  getReferrers(
    key: RepositoryKey,
    subject: Digest,
  ): Promise<ReferrersRow | undefined>;
  /**
   * Keeps a list for as long as its subject is linked in the repository, within bounds on all lists.
   *
   * @returns whether it is kept
   */
  putReferrers(
    key: RepositoryKey,
    subject: Digest,
    row: ReferrersRow,
  ): Promise<boolean>;

  getTagList(key: RepositoryKey): Promise<TagListRow | undefined>;
  /**
   * Keeps a list for as long as the repository is, within bounds on all lists.
   *
   * @returns whether it is kept: only if anything is linked in the repository
   */
  putTagList(key: RepositoryKey, row: TagListRow): Promise<boolean>;
  dropTagList(key: RepositoryKey): Promise<void>;

  /** Notes a use; written in batches, at most 5 s late. Never throws. */
  touchBlob(digest: Digest, atMs: number): void;
  touchTag(key: RepositoryKey, tag: Tag, atMs: number): void;

  totals(): Promise<IndexTotals>;
  /** Answers when the index does. */
  probe(): Promise<void>;
  /** Writes what is pending and closes. */
  close(): Promise<void>;
}

export class IndexError extends Error {
  /** Somebody else held it for too long; nothing is wrong with it. */
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

/** The storage root is away, and the index with it. */
export class IndexAwayError extends IndexError {
  constructor(method: string) {
    super(`${method}: the storage root is away`);
    this.name = "IndexAwayError";
  }
}
