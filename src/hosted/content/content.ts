import type { BlobAnswer, BlobDemand } from "../../bodies/blob-answer.ts";
import type { Digest } from "../../oci/digest.ts";
import type { Reference, Tag } from "../../oci/reference.ts";
import type { HostedRepository, Sender } from "../hosted.ts";

/** A hosted manifest. */
export interface HostedManifest {
  readonly bytes: Buffer;
  readonly mediaType: string;
  readonly digest: Digest;
}

/** The answer to a HEAD of a hosted blob. */
export interface HostedBlobHead {
  readonly sizeBytes: number;
  readonly mediaType: string;
}

/** A page of a list in ASCII order. */
export interface ContentPage<T> {
  readonly entries: readonly T[];
  /** The `last` of the next page; undefined at the end of the list. */
  readonly nextLast: string | undefined;
}

export interface PageDemand {
  /** Undefined: as many entries as one page may have. */
  readonly n: number | undefined;
  /** Exclusive. */
  readonly last: string | undefined;
}

/** Manifests with one subject, as an image index. */
export interface ReferrersPage {
  readonly bytes: Buffer;
  readonly isFiltered: boolean;
  /** The `last` of the next page; undefined at the end. */
  readonly nextLast: Digest | undefined;
}

/** A manifest that a client pushes. */
export interface PushedManifest {
  readonly bytes: Buffer;
  /** The header of the request. */
  readonly contentType: string | undefined;
  /** A tag, or the digest that the bytes must have. */
  readonly reference: Reference;
  /** Further tags of a push by digest. */
  readonly tags: readonly Tag[];
}

export interface StoredManifest {
  readonly digest: Digest;
  /** The tags that point to it now because of the push. */
  readonly tags: readonly Tag[];
  readonly subject: Digest | undefined;
}

/**
 * The content of hosted repositories: manifests, blobs, tags and referrers. Every method throws
 * RegistryError and nothing else that is meant for a client.
 */
export interface HostedContent {
  /** Returns a manifest in memory, without a promise; undefined if {@link getManifest} must be called. */
  recallManifest(
    repository: HostedRepository,
    reference: Reference,
    isHead: boolean,
  ): HostedManifest | undefined;
  /** @throws RegistryError MANIFEST_UNKNOWN */
  getManifest(
    repository: HostedRepository,
    reference: Reference,
    isHead: boolean,
  ): Promise<HostedManifest>;
  /**
   * Describes a blob.
   *
   * @param isClaimed the client may push: the blob is kept for the next manifest that names it
   * @throws RegistryError BLOB_UNKNOWN
   */
  statBlob(
    repository: HostedRepository,
    digest: Digest,
    isClaimed: boolean,
  ): Promise<HostedBlobHead>;
  /**
   * Opens a blob or ranges of it. The caller closes the answer's body. A client that receives the bytes
   * pulls, so the blob is not kept for it.
   *
   * @throws RegistryError BLOB_UNKNOWN
   */
  openBlob(
    repository: HostedRepository,
    digest: Digest,
    demand: BlobDemand,
  ): Promise<BlobAnswer>;
  /** @throws RegistryError NAME_UNKNOWN */
  listTags(
    repository: HostedRepository,
    page: PageDemand,
  ): Promise<ContentPage<Tag>>;
  listReferrers(
    repository: HostedRepository,
    subject: Digest,
    artifactTypes: readonly string[],
    last: Digest | undefined,
  ): Promise<ReferrersPage>;
  /** @throws RegistryError if the manifest is refused or cannot be stored; nothing has changed then */
  putManifest(
    repository: HostedRepository,
    manifest: PushedManifest,
    sender: Sender,
  ): Promise<StoredManifest>;
  /**
   * Deletes a tag, or a manifest with the tags that point to it.
   *
   * @throws RegistryError MANIFEST_UNKNOWN, or DENIED if a tag is immutable
   */
  deleteManifest(
    repository: HostedRepository,
    reference: Reference,
    sender: Sender,
  ): Promise<void>;
  /** @throws RegistryError BLOB_UNKNOWN, or DENIED if an image of an immutable tag needs the blob */
  deleteBlob(
    repository: HostedRepository,
    digest: Digest,
    sender: Sender,
  ): Promise<void>;
}
