import type { Digest } from "../oci/digest.ts";
import type { RepositoryKey, Tag } from "../oci/reference.ts";

/** The manifest that a tag points to. Times are epoch milliseconds. */
export interface TagRow {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly mediaType: string;
  /** When the tag was first seen with its present digest. */
  readonly fetchedAtMs: number;
  /** When the upstream last confirmed it; 0: never, it was imported. */
  readonly verifiedAtMs: number;
  /** When the upstream first answered that the tag does not exist; undefined if the upstream has it. */
  readonly goneAtMs: number | undefined;
  readonly isPinned: boolean;
}

export interface TagIndex {
  getTag(key: RepositoryKey, tag: Tag): Promise<TagRow | undefined>;
  /**
   * Returns the row of {@link getTag} from memory, without a promise.
   *
   * @returns undefined if {@link getTag} must be called; never throws
   */
  recallTag(key: RepositoryKey, tag: Tag): TagRow | undefined;
  /**
   * Points the tag to a stored manifest that its upstream has. `fetchedAtMs` is kept if the digest is
   * the same.
   *
   * @param verifiedAtMs 0: no upstream has confirmed it yet
   * @param seenAtMs when it is first seen with this digest; absent: with the confirmation
   * @throws IndexError if no such manifest is stored
   */
  putTag(
    key: RepositoryKey,
    tag: Tag,
    digest: Digest,
    verifiedAtMs: number,
    seenAtMs?: number,
  ): Promise<void>;
  removeTag(key: RepositoryKey, tag: Tag): Promise<void>;
  /** Records that the upstream no longer has the tag; {@link putTag} reverts it. */
  markTagGone(key: RepositoryKey, tag: Tag, goneAtMs: number): Promise<void>;
  /** Lists tags in ASCII order after `last`. */
  listTags(
    key: RepositoryKey,
    limit: number,
    last: string | undefined,
  ): Promise<readonly Tag[]>;
}
