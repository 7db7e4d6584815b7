import type { Digest } from "../oci/digest.ts";
import type { RepositoryKey, Tag } from "../oci/reference.ts";

/** The kinds of damage that a scrub finds. Scripts and dashboards rely on the names. */
export const SCRUB_CODES = [
  /** The bytes do not match the digest. */
  "blob-corrupt",
  /** The bytes can't be read. */
  "blob-unreadable",
  /** The place of a blob holds something else: an invalid name, a link, a folder. */
  "not-a-blob",
  /** Users other than the owner may write the file, or users outside the group may read it. */
  "blob-mode",
  /** The bytes match the digest, and the index has another size. */
  "size-differs",
  /** The index has a blob whose bytes are absent. */
  "file-missing",
  /** A stored blob has no row in the index. */
  "row-missing",
  /** Children, subject or type of a manifest in the index differ from the manifest itself. */
  "manifest-differs",
  /** An entry among the partial blobs that no write can continue. */
  "partial-stray",
  /** The sums that the index keeps differ from those of its rows. */
  "totals-differ",
  /** A row of the index refers to a missing one. */
  "reference-broken",
  /** The file of the index is damaged. */
  "index-damaged",
  /** A time in the index is ahead of the clock. */
  "time-ahead",
] as const;

export type ScrubCode = (typeof SCRUB_CODES)[number];

export interface ScrubFinding {
  readonly code: ScrubCode;
  /** Relative to the storage root. */
  readonly path: string;
  readonly digest: Digest | null;
  readonly repaired: boolean;
}

export interface ScrubReport {
  /** Blobs that were read completely. */
  readonly blobs: number;
  readonly bytes: number;
  readonly findings: readonly ScrubFinding[];
}

/** A tag that pointed to a manifest whose bytes were wrong. */
export interface DroppedTag {
  readonly key: RepositoryKey;
  readonly tag: Tag;
  readonly verifiedAtMs: number;
  readonly isPinned: boolean;
}

/** A blob that was removed because its bytes were wrong, and what referred to it. */
export interface DroppedBlob {
  readonly digest: Digest;
  readonly isManifest: boolean;
  /** The repositories that may serve it. */
  readonly repositories: readonly RepositoryKey[];
  /** The tags that pointed to it. */
  readonly tags: readonly DroppedTag[];
}
