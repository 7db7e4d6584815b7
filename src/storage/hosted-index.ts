import type { ChildDescriptor } from "../oci/descriptor.ts";
import type { Digest, DigestAlgorithm } from "../oci/digest.ts";
import type { RepositoryKey, RepositoryName, Tag } from "../oci/reference.ts";
import type { Referrer } from "../oci/referrers.ts";
import type { BlobRecord, BlobRow, FillIntent } from "./blob-index.ts";
import type { UploadId } from "./blob-store.ts";
import type { CondemnedBlob } from "./root-index.ts";

/*
 * Hosted repositories: their content was pushed here and is never evicted. The `upstream` of their
 * RepositoryKey is the name of the hosted registry. Tags, links and manifests of hosted repositories
 * are read through the same methods as mirrored ones (TagIndex, BlobLinks, ImageGraph, ImageIndex).
 *
 * A hosted link holds its blob: while it exists the bytes stay. A link that no manifest of the
 * repository names is dropped by the collection, unless it is claimed.
 *
 * Every write resolves after it is durable: the journal line of each name that it changes is synced,
 * then the rows are committed and synced. Lines of one name are written in the order in which their
 * rows commit. Conditions (quota, immutable tags, presence of blobs) are checked by the transaction
 * that writes.
 */

/** A registry's quota, as a condition of a write. */
export interface QuotaCondition {
  /** Infinity: unlimited. */
  readonly maxBytes: number;
  /**
   * Bytes of open uploads that count for the registry, without the one that this write ends. Read in
   * the transaction: an upload that was recorded a moment before counts there as stored.
   */
  readonly reservedBytes: number;
}

/** Returns whether a tag may neither be moved nor deleted. */
export type ImmutableTags = (tag: Tag) => boolean;

/** Used for registries without immutable tags: a deletion then need not find every tag above a blob. */
export const NOTHING_IMMUTABLE: ImmutableTags = () => false;

/** - `absent`: the blob is not stored, is being removed, or is not linked to `from` */
export type HostedBlobOutcome = "stored" | "absent" | "over-quota";

/** An uploaded blob that is about to be linked; its bytes are published. */
export type HostedBlobRecord = Omit<BlobRecord, "manifest">;

export interface HostedBlobs {
  /**
   * Records that bytes of a push are about to be published. {@link HostedBlobs.recordHostedBlob} and
   * {@link HostedManifests.putHostedManifest} settle it; bytes that get no row are removed later, also
   * after a crash.
   */
  beginHostedWrite(key: RepositoryKey, blob: FillIntent): Promise<void>;
  /** Writes the row of an uploaded blob, links it to the repository and claims it. */
  recordHostedBlob(
    key: RepositoryKey,
    blob: HostedBlobRecord,
    quota: QuotaCondition,
  ): Promise<Exclude<HostedBlobOutcome, "absent">>;
  /** Links and claims a stored blob that `from`, mirrored or hosted, links too. */
  mountHostedBlob(
    key: RepositoryKey,
    digest: Digest,
    from: RepositoryKey,
    atMs: number,
    quota: QuotaCondition,
  ): Promise<HostedBlobOutcome>;
  /** Lists repositories, mirrored and hosted, that link a stored blob, in the order in which they were first seen. */
  listBlobRepositories(
    digest: Digest,
    limit: number,
    last: RepositoryKey | undefined,
  ): Promise<readonly RepositoryKey[]>;
  /**
   * Returns the row of a linked blob and claims the link: a client that may push has received the answer
   * that the blob exists, and the next manifest may name it. A manifest that names the blob ends the claim.
   */
  claimHostedBlob(
    key: RepositoryKey,
    digest: Digest,
    atMs: number,
  ): Promise<BlobRow | undefined>;
  /** Removes a link; `immutable` if an image of an immutable tag needs the blob. */
  unlinkHostedBlob(
    key: RepositoryKey,
    digest: Digest,
    isImmutable: ImmutableTags,
  ): Promise<HostedDeletion>;
}

export type HostedDeletion =
  /** `tags`: those that pointed to a deleted manifest, deleted with it. */
  | { readonly kind: "deleted"; readonly tags: readonly Tag[] }
  | { readonly kind: "absent" }
  | { readonly kind: "immutable"; readonly tag: Tag };

/** A manifest that is about to become part of a hosted repository; its bytes are published. */
export interface HostedManifestRecord {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly storedAtMs: number;
  readonly mediaType: string;
  readonly children: readonly ChildDescriptor[];
  readonly subject: Digest | undefined;
  /** Of its descriptor in lists of referrers. */
  readonly artifactType: string | undefined;
  readonly annotations: Readonly<Record<string, string>> | undefined;
}

/** Conditions of a push. */
export interface ManifestConditions {
  readonly quota: QuotaCondition;
  readonly isImmutable: ImmutableTags;
}

export type HostedManifestOutcome =
  | {
      readonly kind: "stored";
      /** The digest that each tag had before; undefined if the tag is new. */
      readonly tags: readonly {
        readonly tag: Tag;
        readonly before: Digest | undefined;
      }[];
    }
  /** A child that the repository does not have. Foreign layers and the subject may be missing. */
  | { readonly kind: "missing"; readonly digest: Digest }
  | { readonly kind: "immutable"; readonly tag: Tag }
  | { readonly kind: "over-quota" };

export interface ReferrerPage {
  /** Empty: all. */
  readonly artifactTypes: readonly string[];
  readonly limit: number;
  readonly last: Digest | undefined;
}

/** Epoch milliseconds. */
export interface HostedTag {
  readonly tag: Tag;
  readonly digest: Digest;
  /** When it was last pushed, also with the digest that it had. */
  readonly pushedAtMs: number;
  /** When it was last pulled; the push if it was not. */
  readonly pulledAtMs: number;
}

export interface UntaggedManifest {
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** When it was pushed, or lost its last tag. */
  readonly untaggedAtMs: number;
}

export interface HostedManifests {
  /** Stores a manifest and points tags to it: all of them, or nothing. */
  putHostedManifest(
    key: RepositoryKey,
    manifest: HostedManifestRecord,
    tags: readonly Tag[],
    conditions: ManifestConditions,
  ): Promise<HostedManifestOutcome>;
  /**
   * Removes a tag; its manifest stays.
   *
   * @param onlyIf what an earlier read returned; `absent` if the tag was pushed again since
   */
  deleteHostedTag(
    key: RepositoryKey,
    tag: Tag,
    isImmutable: ImmutableTags,
    onlyIf?: Pick<HostedTag, "digest" | "pushedAtMs">,
  ): Promise<HostedDeletion>;
  /**
   * Removes a manifest and every tag that points to it.
   *
   * @param onlyIf what an earlier {@link listUntaggedManifests} returned; `absent` if it would not
   *   return the same now
   */
  deleteHostedManifest(
    key: RepositoryKey,
    digest: Digest,
    isImmutable: ImmutableTags,
    onlyIf?: Pick<UntaggedManifest, "untaggedAtMs">,
  ): Promise<HostedDeletion>;
  /** Lists manifests of the repository with this subject, in the order of their digests. */
  listHostedReferrers(
    key: RepositoryKey,
    subject: Digest,
    page: ReferrerPage,
  ): Promise<readonly Referrer[]>;
  listHostedTags(
    key: RepositoryKey,
    limit: number,
    last: Tag | undefined,
  ): Promise<readonly HostedTag[]>;
  /**
   * Lists manifests that no tag and no manifest of the repository names, and whose subject the
   * repository does not have, in the order of their digests.
   */
  listUntaggedManifests(
    key: RepositoryKey,
    limit: number,
    last: Digest | undefined,
  ): Promise<readonly UntaggedManifest[]>;
  /** Lists repositories of a hosted registry that have a manifest, in ASCII order. */
  listHostedRepositories(
    registry: string,
    limit: number,
    last: RepositoryName | undefined,
  ): Promise<readonly RepositoryName[]>;
  /** Lists the hosted registries that have content, with the bytes of their distinct digests. */
  listHostedRegistries(): Promise<
    readonly { readonly registry: string; readonly bytes: number }[]
  >;
}

export interface CollectionStep {
  /** Links that were dropped. */
  readonly links: number;
  /** Nothing else can be dropped now. */
  readonly isEnd: boolean;
}

export interface HostedCollection {
  /**
   * Drops links of blobs that no manifest of their repository names and that were not claimed since.
   * A blob that nothing holds then is condemned, see RetentionIndex.
   *
   * @param limit links to examine, which bounds the time
   * @param deletedBeforeMs keeps blobs named by a manifest that was deleted later; absent: keeps none of them
   */
  dropUnneededLinks(
    claimedBeforeMs: number,
    limit: number,
    deletedBeforeMs?: number,
  ): Promise<CollectionStep>;
  /** Returns the blobs that a collection would free now, and changes nothing. */
  previewCollection(
    claimedBeforeMs: number,
    limit: number,
  ): Promise<readonly CondemnedBlob[]>;
}

/** An upload session. Its bytes are in the blob store, under its id. */
export interface UploadRow {
  readonly id: UploadId;
  readonly key: RepositoryKey;
  readonly algorithm: DigestAlgorithm;
  readonly startedAtMs: number;
  /** When it last received bytes. */
  readonly touchedAtMs: number;
}

export interface HostedUploads {
  putUpload(upload: UploadRow): Promise<void>;
  getUpload(id: UploadId): Promise<UploadRow | undefined>;
  dropUpload(id: UploadId): Promise<void>;
  listUploads(
    limit: number,
    last: UploadId | undefined,
  ): Promise<readonly UploadRow[]>;
}

/** The index of hosted repositories. */
export interface HostedIndex
  extends HostedBlobs, HostedManifests, HostedCollection, HostedUploads {}
