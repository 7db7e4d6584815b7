/** A tag or manifest that retention deletes. */
export interface RetentionDeletion {
  /** As an operator writes it: `local/team/app:v1`, or `local/team/app@sha256:…`. */
  readonly ref: string;
  /** The rule that decided, as the operator reads it: `ci/**: not among the newest 10`. */
  readonly reason: string;
}

export interface GarbageReport {
  /** Tags and manifests that retention deleted, or would delete; at most {@link MAX_LISTED_DELETIONS}. */
  readonly deleted: readonly RetentionDeletion[];
  /** The number of these deletions, listed or not. */
  readonly deletions: number;
  /**
   * Blobs that were removed, or would be. A dry run does not count blobs that only `deleted` needs, and ends
   * at 1 000 blobs while the mirror runs.
   */
  readonly blobs: number;
  /** Bytes of these blobs. */
  readonly bytes: number;
}

/** Bounds a report's memory. */
export const MAX_LISTED_DELETIONS = 10_000;

/** The collection that `entrepot gc` and `POST /api/v1/gc` run. */
export interface GarbageCollection {
  /**
   * Applies the rules of retention, then removes every blob of hosted repositories that nothing needs
   * and that no running push may still name. Joins the background collection, and never delays a read.
   *
   * @param isDryRun reports only, and changes nothing
   * @throws IndexError if the index can't be read or written
   */
  collect(options: {
    readonly isDryRun: boolean;
    readonly signal?: AbortSignal;
  }): Promise<GarbageReport>;
}
