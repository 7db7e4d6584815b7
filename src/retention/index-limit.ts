import type { IndexState } from "../storage/metadata-index.ts";
import type { RetentionIndex } from "../storage/root-index.ts";
import type { Pace } from "./victim-search.ts";

export type LimitedIndex = Pick<IndexState, "totals"> &
  Pick<RetentionIndex, "usedBytes" | "dropUnrooted">;

/** The rows of a million blobs with their tags and links need about half of it. */
const LEAST_LIMIT_BYTES = 512 * 1024 * 1024;
/** The share of `maxSize` that the index may use. */
const LIMIT_SHARE = 0.05;
/** The share of the roots to evict if dropping links was not enough. */
const ROOTS_SHARE = 0.01;
const LEAST_ROOTS = 16;

/**
 * Bounds the size of the whole index. The other limits count bytes of blobs and lists, and names have
 * none: one small manifest under a million names is a million rows.
 */
export class IndexLimit {
  readonly #index: LimitedIndex;
  readonly #leastBytes: number;

  constructor(index: LimitedIndex, leastBytes: number = LEAST_LIMIT_BYTES) {
    this.#index = index;
    this.#leastBytes = leastBytes;
  }

  /**
   * Drops links of repositories without a root while the index exceeds its bound.
   *
   * @param maxSizeBytes limit of the stored bytes; Infinity: unlimited
   * @returns how many roots must be evicted too; 0: none
   */
  async enforce(maxSizeBytes: number, pace: Pace): Promise<number> {
    const limitBytes = Number.isFinite(maxSizeBytes)
      ? Math.max(this.#leastBytes, maxSizeBytes * LIMIT_SHARE)
      : this.#leastBytes;
    let passes = 0;
    while ((await this.#index.usedBytes()) > limitBytes) {
      // The first pass may start in the middle.
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
