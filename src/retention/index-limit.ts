import type { IndexState } from "../storage/metadata-index.ts";
import type { RetentionIndex } from "../storage/root-index.ts";
import type { Pace } from "./victim-search.ts";

export type LimitedIndex = Pick<IndexState, "totals"> &
  Pick<RetentionIndex, "usedBytes" | "dropUnrooted">;

/** Rows of a million blobs, their tags and links take about half of it. */
const LEAST_LIMIT_BYTES = 512 * 1024 * 1024;
/** Of `maxSize`. */
const LIMIT_SHARE = 0.05;
/** Of the roots, so many go where the rest was not enough. */
const ROOTS_SHARE = 0.01;
const LEAST_ROOTS = 16;

/**
 * The bound on every table of the index together. The limits count bytes of blobs and lists; names
 * take none: one small manifest under a million of names is a million rows.
 */
export class IndexLimit {
  readonly #index: LimitedIndex;
  readonly #leastBytes: number;

  constructor(index: LimitedIndex, leastBytes: number = LEAST_LIMIT_BYTES) {
    this.#index = index;
    this.#leastBytes = leastBytes;
  }

  /**
   * Drops links of repositories without a root for as long as the index is over its bound.
   *
   * @param maxSizeBytes of what is stored; Infinity: unlimited
   * @returns how many roots must go; 0: none
   */
  async enforce(maxSizeBytes: number, pace: Pace): Promise<number> {
    const limitBytes = Number.isFinite(maxSizeBytes)
      ? Math.max(this.#leastBytes, maxSizeBytes * LIMIT_SHARE)
      : this.#leastBytes;
    let passes = 0;
    while ((await this.#index.usedBytes()) > limitBytes) {
      // The first pass begins anywhere.
      if (passes === 2) {
        const { tags, manifests } = await this.#index.totals();
        return Math.max(
          LEAST_ROOTS,
          Math.ceil((tags + manifests) * ROOTS_SHARE),
        );
      }
      const { isEnd } = await this.#index.dropUnrooted();
      if (isEnd) passes += 1;
      await pace.step();
    }
    return 0;
  }
}
