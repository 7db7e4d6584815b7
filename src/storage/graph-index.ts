import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { RepositoryKey } from "../oci/reference.ts";
import type { IndexCursor } from "./index-cursor.ts";

/** Where the blobs of an image must be linked: to its repository, or to any repository of the upstream. */
export type BlobScope = "repository" | "upstream";

/** A digest of a root's graph. */
export interface GraphNode {
  readonly digest: Digest;
  /** Undefined if it is not stored. */
  readonly sizeBytes: number | undefined;
  /** True if it is stored as a manifest, or a stored manifest names it as one. */
  readonly isManifest: boolean;
  /** How many tags, other roots and stored manifests need it; Infinity above a bound on counting. */
  readonly holders: number;
}

export interface ChildPage {
  readonly nodes: readonly GraphNode[];
  /** Undefined at the end. */
  readonly next: IndexCursor | undefined;
}

/** The manifests and what each of them names. */
export interface ImageGraph {
  getNode(digest: Digest): Promise<GraphNode | undefined>;
  /** Lists the children of a stored manifest, some hundred at a time, each once. */
  listChildren(
    parent: Digest,
    after: IndexCursor | undefined,
  ): Promise<ChildPage>;
  /** Returns the descriptor of a child from any stored manifest linked to the repository. */
  findDescriptor(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<Descriptor | undefined>;
  /**
   * Returns whether a pull of the manifest can be finished from the cache: a manifest with all its
   * blobs (except foreign ones), or an index with at least one complete child. Manifests must be
   * linked to the repository.
   *
   * @param blobScope "upstream" is sufficient if a blob is linked on demand to every repository with
   *   a manifest that names it
   */
  isComplete(
    key: RepositoryKey,
    digest: Digest,
    blobScope: BlobScope,
  ): Promise<boolean>;
}
