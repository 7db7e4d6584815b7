import type { Digest } from "../oci/digest.ts";
import type { RepositoryKey } from "../oci/reference.ts";

/** The last answer of the referrers API: the bytes of an image index. */
export interface ReferrersRow {
  readonly body: Buffer;
  readonly verifiedAtMs: number;
}

/** The last list of tags of a repository, encoded by its reader. Times are epoch milliseconds. */
export interface TagListRow {
  readonly body: Buffer;
  readonly fetchedAtMs: number;
}

/** The stored referrers lists. */
export interface StoredReferrers {
  getReferrers(
    key: RepositoryKey,
    subject: Digest,
  ): Promise<ReferrersRow | undefined>;
  /**
   * Keeps a list for as long as its subject is linked to the repository, within bounds on all lists.
   *
   * @returns whether it is kept
   */
  putReferrers(
    key: RepositoryKey,
    subject: Digest,
    row: ReferrersRow,
  ): Promise<boolean>;
}

/** The stored lists of an upstream's tags. */
export interface StoredTagLists {
  getTagList(key: RepositoryKey): Promise<TagListRow | undefined>;
  /**
   * Keeps a list for as long as the repository has a row, within bounds on all lists.
   *
   * @returns whether it is kept: only if the repository has a link
   */
  putTagList(key: RepositoryKey, row: TagListRow): Promise<boolean>;
  dropTagList(key: RepositoryKey): Promise<void>;
}
