import type { Digest } from "../oci/digest.ts";
import type { Reference, RepositoryKey } from "../oci/reference.ts";

/**
 * What is kept for its own sake, with its graph, and leaves as a whole: a tag; a manifest that was
 * asked for by digest, or that a tag has left, and that no cached tag or index of the repository
 * names; a blob that no stored manifest names. Everything stored is needed by at least one.
 */
export interface RootRow {
  /** Both names are empty for what was found stored and nobody has asked for since. */
  readonly key: RepositoryKey;
  readonly reference: Reference;
  readonly digest: Digest;
  /** Undefined for a blob that no manifest names. */
  readonly mediaType: string | undefined;
  /** Epoch milliseconds of the last pull. */
  readonly usedAtMs: number;
  readonly isPinned: boolean;
}

/** What is pinned and not there. */
export interface LostPin {
  readonly key: RepositoryKey;
  readonly reference: Reference;
}

/** A place in the order of {@link RootIndex.listOldestRoots}; only the index reads it. */
export interface RootCursor {
  readonly tag: readonly [number, number, string];
  readonly other: readonly [number, number, number];
}

export interface RootPage {
  readonly roots: readonly RootRow[];
  /** Undefined at the end. */
  readonly next: RootCursor | undefined;
}

/** A place in the order of {@link RootIndex.listImages}: behind an image, or at a repository's first. */
export interface ImageCursor {
  readonly key: RepositoryKey;
  readonly reference: Reference | undefined;
}

export interface ImagePage {
  /** Fewer than were asked for, or none, also before the end. */
  readonly images: readonly RootRow[];
  /** Undefined at the end. */
  readonly next: ImageCursor | undefined;
}

/** A digest of a root's graph. */
export interface GraphNode {
  readonly digest: Digest;
  /** Undefined: not stored. */
  readonly sizeBytes: number | undefined;
  /** It is stored as one, or named as one by a manifest that is. */
  readonly isManifest: boolean;
  /** How many tags, other roots and stored manifests need it; Infinity where they are very many. */
  readonly holders: number;
}

export interface ChildPage {
  readonly nodes: readonly GraphNode[];
  readonly next: number | undefined;
}

/** The part of the index that room is made by. Each method takes a bounded time, whatever the index holds. */
export interface RootIndex {
  /** Roots that are not pinned, the one that was pulled longest ago first. */
  listOldestRoots(
    limit: number,
    after: RootCursor | undefined,
  ): Promise<RootPage>;
  /** Tags and digests with a manifest, by `upstream/repository`, then tags by name, then digests. */
  listImages(limit: number, after: ImageCursor | undefined): Promise<ImagePage>;
  getRoot(
    key: RepositoryKey,
    reference: Reference,
  ): Promise<RootRow | undefined>;
  getNode(digest: Digest): Promise<GraphNode | undefined>;
  /** What a stored manifest names, some hundred at a time, each once. */
  listChildren(parent: Digest, after: number | undefined): Promise<ChildPage>;

  /**
   * Pins a tag, or a digest that is linked in the repository, or takes the pin off. A pin outlives
   * its manifest: see {@link listLostPins}.
   *
   * @returns false where it is not cached, and has no pin that was lost
   */
  setPinned(
    key: RepositoryKey,
    reference: Reference,
    isPinned: boolean,
  ): Promise<boolean>;
  /** Keeps the pin of what is not cached, for when it comes. */
  keepLostPin(key: RepositoryKey, reference: Reference): Promise<void>;
  /** Pins whose manifest was lost; each is in force again once its manifest is recorded. */
  listLostPins(limit: number): Promise<readonly LostPin[]>;
  /**
   * Ends a root, its pin included. What no other root needs is condemned: it is out of every count of what is kept,
   * stays readable until its bytes go, and is kept after all when it is needed again before.
   *
   * @param usedAtMs present: only where it was not used since, and is not pinned
   * @returns false where there is no such root, or it was used or pinned since
   */
  dropRoot(
    key: RepositoryKey,
    reference: Reference,
    usedAtMs?: number,
  ): Promise<boolean>;
  /** Condemned blobs that are still not needed, manifests before what they name. */
  listCondemned(
    limit: number,
    except: ReadonlySet<Digest>,
  ): Promise<readonly { digest: Digest; sizeBytes: number }[]>;
  /**
   * Drops the rows of condemned blobs whose bytes are gone, and condemns what only they needed.
   * One that is needed again loses its row too: its bytes are gone.
   */
  forgetCondemned(digests: readonly Digest[]): Promise<void>;

  /** What the index's rows take of its file. */
  usedBytes(): Promise<number>;
  /**
   * Drops links of repositories without any root, some at a time, and the repositories; what is
   * asked for there again is proven again.
   */
  dropUnrooted(): Promise<UnrootedStep>;

  /** Notes a request for a manifest: every root of the repository above it was used. */
  touchManifest(key: RepositoryKey, digest: Digest, atMs: number): void;
  /** Writes the noted uses, in slices that hold nobody up. */
  settleUses(): Promise<void>;
}

export interface UnrootedStep {
  /** Rows that went. */
  readonly rows: number;
  /** Every repository was looked at: the next step begins with the first. */
  readonly isEnd: boolean;
}
