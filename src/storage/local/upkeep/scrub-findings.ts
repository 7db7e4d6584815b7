import type { Digest } from "../../../oci/digest.ts";
import type { DiskLayout } from "../root/disk-layout.ts";

/** What can be wrong with a storage root. Scripts and dashboards rely on the names. */
export const SCRUB_CODES = [
  /** The bytes are not those of the digest in the name. */
  "blob-corrupt",
  /** The bytes can't be read. */
  "blob-unreadable",
  /** In the folder of the blobs stands something else: another name, a link, a folder. */
  "not-a-blob",
  /** Others than the owner may write the file, or others than the group read it. */
  "blob-mode",
  /** The bytes are right, and the index says another size. */
  "size-differs",
  /** The index has a blob that is not there. */
  "file-missing",
  /** A blob is there that the index has not. */
  "row-missing",
  /** What the index says of a manifest's children, subject or type is not what the manifest says. */
  "manifest-differs",
  /** The partial folder holds what no fill can go on from. */
  "partial-stray",
  /** The sums that the index keeps are not those of its rows. */
  "totals-differ",
  /** A row of the index points to one that is not there. */
  "reference-broken",
  /** The file of the index is damaged. */
  "index-damaged",
  /** A time in the index lies ahead of the clock. */
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

/** What a scrub found, each with whether it could be put right. */
export class ScrubFindings {
  readonly #layout: DiskLayout;
  readonly #isRepair: boolean;
  readonly #all: ScrubFinding[] = [];

  constructor(layout: DiskLayout, isRepair: boolean) {
    this.#layout = layout;
    this.#isRepair = isRepair;
  }

  get all(): readonly ScrubFinding[] {
    return this.#all;
  }

  note(
    code: ScrubCode,
    path: string,
    found: { readonly digest?: Digest | undefined; readonly repaired: boolean },
  ): void {
    this.#all.push({
      code,
      path: path.slice(this.#layout.root.length + 1),
      digest: found.digest ?? null,
      repaired: found.repaired,
    });
  }

  /** @param repair is called where things are to be put right; it may fail */
  async report(
    code: ScrubCode,
    path: string,
    digest: Digest | undefined,
    repair: () => Promise<void>,
  ): Promise<void> {
    const repaired = this.#isRepair && (await repair().then(isDone, isNotDone));
    this.note(code, path, { digest, repaired });
  }

  reportBlob(
    code: ScrubCode,
    digest: Digest,
    repair: () => Promise<void>,
  ): Promise<void> {
    return this.report(code, this.#layout.blobFile(digest), digest, repair);
  }
}

/** What could not be repaired now, on a disk that takes no writes, is told as it is. */
const isDone = (): boolean => true;
const isNotDone = (): boolean => false;
