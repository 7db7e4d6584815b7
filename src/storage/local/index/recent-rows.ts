import { LRUCache } from "lru-cache";

/** Some hundred bytes each: a few MiB at most. */
const MAX_ROWS = 10_000;

/**
 * Rows of the index that were read since it was last written. They answer at once and can't be
 * wrong, because every write drops them all: who evicts, moves a tag or breaks a link need not
 * know of them.
 */
export class RecentRows<Row extends object> {
  readonly #rows = new LRUCache<string, Row>({ max: MAX_ROWS });

  get(key: string): Row | undefined {
    return this.#rows.get(key);
  }

  /** What is not there is not remembered. @returns the row */
  keep(key: string, row: Row | undefined): Row | undefined {
    if (row !== undefined) this.#rows.set(key, row);
    return row;
  }

  clear(): void {
    if (this.#rows.size > 0) this.#rows.clear();
  }
}
