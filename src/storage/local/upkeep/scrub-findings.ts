import type { Digest } from "../../../oci/digest.ts";
import type { ScrubCode, ScrubFinding } from "../../scrub-report.ts";
import type { DiskLayout } from "../root/disk-layout.ts";

/** Collects the findings of a scrub, each with whether it was repaired. */
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

  /** @param repair called if the scrub repairs; may reject */
  async report(
    code: ScrubCode,
    path: string,
    digest: Digest | undefined,
    repair: () => Promise<void>,
  ): Promise<void> {
    const repaired = this.#isRepair && (await repair().then(isDone, isNotDone));
    this.note(code, path, { digest, repaired });
  }

  /** Corrects what is not worth a finding, if the scrub repairs. */
  async repairSilently(repair: () => Promise<void>): Promise<void> {
    if (this.#isRepair) await repair().catch(() => undefined);
  }

  reportBlob(
    code: ScrubCode,
    digest: Digest,
    repair: () => Promise<void>,
  ): Promise<void> {
    return this.report(code, this.#layout.blobFile(digest), digest, repair);
  }
}

/** A failed repair, for example on a read-only disk, is reported as not repaired. */
const isDone = (): boolean => true;
const isNotDone = (): boolean => false;
