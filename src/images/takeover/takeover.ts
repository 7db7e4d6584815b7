import type { Digest } from "../../oci/digest.ts";
import type {
  RepositoryKey,
  RepositoryName,
  Tag,
} from "../../oci/reference.ts";

/**
 * - `damaged`: bytes or a link are not what their name says
 * - `missing`: a link or a manifest names content that the folder does not have
 * - `refused`: a rule of the target, such as its quota or an immutable tag
 * - `unknown`: not understood, such as a schema 1 manifest or a foreign file
 */
export type ProblemKind = "damaged" | "missing" | "refused" | "unknown";

/** A part of the folder that was not taken over. */
export interface TakeoverProblem {
  readonly kind: ProblemKind;
  /** As in `team/app:1`, `team/app@sha256:…`, or a path below the folder. */
  readonly name: string;
  readonly message: string;
}

/** The counts of a take-over; of a dry run, what it would take. */
export interface TakeoverCounts {
  readonly repositories: number;
  readonly tags: number;
  readonly manifests: number;
  /** Blobs and manifests that were not stored before, and their bytes. */
  readonly blobs: number;
  readonly bytes: number;
  /** Those of them whose bytes were copied; the others are hard links. */
  readonly copiedBlobs: number;
  readonly copiedBytes: number;
  /** Blobs and manifests that were stored before. */
  readonly presentBlobs: number;
  /** Tags, manifests by digest and others whose parts are not all in the folder, as a proxy has them. */
  readonly incomplete: number;
  /** Blobs of a private registry that no manifest names. */
  readonly unnamedBlobs: number;
  readonly problemCount: number;
}

/** Counts links of repositories: each is one blob or manifest in one repository. */
export interface TakeoverProgress {
  readonly done: number;
  readonly total: number;
  /** Bytes that were verified by now. */
  readonly bytes: number;
}

/** A file of the folder that holds a blob. */
export interface FolderBlob {
  readonly digest: Digest;
  /** Absolute. */
  readonly path: string;
  readonly sizeBytes: number;
  /** The user that owns it. */
  readonly userId: number;
}

/** A manifest of the folder whose bytes match its digest. */
export interface FolderManifest extends FolderBlob {
  readonly bytes: Buffer;
}

/** A tag of the folder. */
export interface FolderTag {
  readonly tag: Tag;
  readonly digest: Digest;
  /** When it was last pointed to a manifest, in epoch milliseconds. */
  readonly writtenAtMs: number;
}

export interface Failed {
  readonly kind: "failed";
  readonly problem: ProblemKind;
  readonly message: string;
}

/** The result of taking over one blob or manifest. */
export type Taken = { readonly kind: "linked" | "copied" | "present" } | Failed;

/** The end of a take-over, and its progress. */
export interface TakeoverWork {
  readonly signal: AbortSignal;
  /** Called with the bytes that were verified since the last call. */
  readonly onBytes: (bytes: number) => void;
}

/** Where the content of the folder is recorded. */
export interface TakeoverTarget {
  /** Whether blobs are recorded that no manifest names, and manifests that name absent content. */
  readonly takesParts: boolean;
  /** @returns undefined if the name is too long for the target */
  keyOf(name: RepositoryName): RepositoryKey | undefined;
  takeBlob(
    key: RepositoryKey,
    blob: FolderBlob,
    work: TakeoverWork,
  ): Promise<Taken>;
  /** Records a manifest, and then its tags. What it names was recorded before, if the folder has it. */
  takeManifest(
    key: RepositoryKey,
    manifest: FolderManifest,
    tags: readonly Tag[],
    work: TakeoverWork,
  ): Promise<Taken>;
  /** Decides whether a tag is recorded: not if the target has a newer one. */
  judgeTag(key: RepositoryKey, tag: FolderTag): Promise<TagVerdict>;
}

export type TagVerdict =
  | { readonly kind: "take" }
  /** The tag has this digest already. */
  | { readonly kind: "present" }
  | { readonly kind: "refused"; readonly message: string }
  /** The mirror asked the upstream later than the folder's registry did. */
  | { readonly kind: "newer" };
