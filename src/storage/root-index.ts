import type { Digest } from "../oci/digest.ts";
import type { Reference, RepositoryKey } from "../oci/reference.ts";
import type { IndexCursor } from "./index-cursor.ts";

/** The name of a root: a tag or a digest in a repository. */
export interface RootName {
  /** Both names are empty for content that was found on disk and not requested since. */
  readonly key: RepositoryKey;
  readonly reference: Reference;
}

/**
 * The unit of eviction: content that is kept for its own sake, together with its graph. A root is
 * - a tag;
 * - a manifest that was requested by digest, or that a tag pointed to before, and that no cached tag
 *   or index of the repository names;
 * - a blob that no stored manifest names.
 *
 * Everything stored is needed by at least one root.
 */
export interface RootRow extends RootName {
  readonly digest: Digest;
  /** Undefined for a blob that no manifest names. */
  readonly mediaType: string | undefined;
  /** Epoch milliseconds of the last pull. */
  readonly usedAtMs: number;
  readonly isPinned: boolean;
}

export interface RootPage {
  readonly roots: readonly RootRow[];
  /** Undefined at the end. */
  readonly next: IndexCursor | undefined;
}

export interface ImagePage {
  /** May be shorter than the limit, or empty, before the end. */
  readonly images: readonly RootRow[];
  /** Undefined at the end. */
  readonly next: IndexCursor | undefined;
}

/** Condemned content: no root needs it. */
export interface CondemnedBlob {
  readonly digest: Digest;
  readonly sizeBytes: number;
}

export interface UnrootedStep {
  /** Deleted rows. */
  readonly rows: number;
  /** Every repository was examined; the next step starts with the first one. */
  readonly isEnd: boolean;
}

/** The cached images, for operators. */
export interface ImageIndex {
  /**
   * Lists tags and manifests by digest, in the order of `upstream/repository`, tags by name before
   * digests.
   *
   * @param after the `next` of a page, or the name of an image, which need not exist
   */
  listImages(
    limit: number,
    after: IndexCursor | RootName | undefined,
  ): Promise<ImagePage>;
  getRoot(
    key: RepositoryKey,
    reference: Reference,
  ): Promise<RootRow | undefined>;
}

/** Eviction of roots. Each method takes a bounded time, however large the index is. */
export interface RetentionIndex {
  /** Lists roots that are not pinned, least recently pulled first. */
  listOldestRoots(
    limit: number,
    after: IndexCursor | undefined,
  ): Promise<RootPage>;
  /**
   * Removes a root, including its pin. Content that no other root needs is condemned: it no longer
   * counts as stored, stays readable until its bytes are deleted, and is kept if a root needs it
   * again before that.
   *
   * @param usedAtMs present: removes the root only if it was not used since and is not pinned
   * @returns false if there is no such root, or it was used or pinned since
   */
  dropRoot(
    key: RepositoryKey,
    reference: Reference,
    usedAtMs?: number,
  ): Promise<boolean>;
  /**
   * Lists condemned blobs that no root needs, manifests before their children, for removal. From then
   * on they can't be linked to a hosted repository, also after a restart, until the caller reports the
   * result with {@link forgetCondemned} or {@link releaseCondemned}. Those whose removal was
   * interrupted are listed first, even if they are needed: their bytes may be gone.
   */
  listCondemned(
    limit: number,
    except: ReadonlySet<Digest>,
  ): Promise<readonly CondemnedBlob[]>;
  /**
   * Drops the rows of condemned blobs whose bytes are deleted, and condemns what only they needed.
   * Also drops the row of a blob that is needed again, because its bytes are gone.
   */
  forgetCondemned(digests: readonly Digest[]): Promise<void>;
  /** Ends the removal of listed blobs whose bytes were not removed; they stay condemned. */
  releaseCondemned(digests: readonly Digest[]): Promise<void>;
  /** Returns whether a hosted repository holds the blob. */
  isHosted(digest: Digest): Promise<boolean>;
  /** Returns the bytes that the index itself takes. */
  usedBytes(): Promise<number>;
  /**
   * Drops repositories without a root, and their links, a bounded number per call. A later request
   * for one of them must prove access again.
   */
  dropUnrooted(): Promise<UnrootedStep>;
}

/** Pins protect a root from eviction. A pin outlives its manifest: see {@link listLostPins}. */
export interface PinIndex {
  /**
   * Pins or unpins a tag, or a digest that is linked to the repository.
   *
   * @returns false if it is not cached and has no lost pin
   */
  setPinned(
    key: RepositoryKey,
    reference: Reference,
    isPinned: boolean,
  ): Promise<boolean>;
  /** Records the pin of content that is not cached; it is effective once the content is recorded. */
  keepLostPin(key: RepositoryKey, reference: Reference): Promise<void>;
  /** Lists pins whose manifest is not stored. Each is effective again once its manifest is recorded. */
  listLostPins(limit: number): Promise<readonly RootName[]>;
}
