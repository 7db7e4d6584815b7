import { setImmediate as nextTurn } from "node:timers/promises";
import type { Digest } from "../oci/digest.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { HotManifests } from "../storage/hot-manifests.ts";
import type { RetentionIndex } from "../storage/root-index.ts";
import type { TrackedBlobStore } from "../storage/tracked-blob-store.ts";

/** Files removed concurrently, and rows dropped in one transaction. */
const BLOBS_PER_STEP = 8;

export interface CondemnedBlobsOptions {
  readonly index: Pick<RetentionIndex, "listCondemned" | "forgetCondemned">;
  readonly blobs: TrackedBlobStore;
  readonly hot?: HotManifests;
  readonly log: Pick<Logger, "warn">;
}

/** The blobs that a purge removed. */
export interface Purged {
  readonly blobs: number;
  readonly bytes: number;
  /** Nothing is left that can be removed now. */
  readonly isEnd: boolean;
}

/** Removes the bytes of blobs that no root needs, then their rows. */
export class CondemnedBlobs {
  readonly #options: CondemnedBlobsOptions;

  constructor(options: CondemnedBlobsOptions) {
    this.#options = options;
  }

  /**
   * Removes condemned blobs that are idle, level by level.
   *
   * @param isStopped checked before each step
   */
  async purge(isStopped: () => boolean): Promise<Purged> {
    const { index, blobs, hot, log } = this.#options;
    const except = new Set<Digest>();
    let [removed, bytes] = [0, 0];
    for (;;) {
      // Checked before the list: whatever is listed counts as being removed.
      if (isStopped()) return { blobs: removed, bytes, isEnd: false };
      const found = await index.listCondemned(BLOBS_PER_STEP, except);
      if (found.length === 0) return { blobs: removed, bytes, isEnd: true };
      const claim = blobs.claim(found.map(({ digest }) => digest));
      try {
        const gone: Digest[] = [];
        await Promise.all(
          found.map(async ({ digest, sizeBytes }) => {
            if (!claim.keys.includes(digest)) {
              except.add(digest);
              return;
            }
            hot?.delete(digest);
            try {
              await blobs.remove(digest);
              gone.push(digest);
              removed += 1;
              bytes += sizeBytes;
            } catch (error) {
              except.add(digest);
              log.warn(
                { err: error, digest },
                "a condemned blob could not be removed",
              );
            }
          }),
        );
        await index.forgetCondemned(gone);
      } finally {
        claim.release();
      }
      await nextTurn();
    }
  }

  /** Removes only the files, for an index that can't be written; the rows stay. */
  async removeFiles(digests: readonly Digest[]): Promise<void> {
    const { blobs, hot } = this.#options;
    const claim = blobs.claim(digests);
    try {
      for (const digest of claim.keys) {
        hot?.delete(digest);
        await blobs.remove(digest);
      }
    } finally {
      claim.release();
    }
  }
}
