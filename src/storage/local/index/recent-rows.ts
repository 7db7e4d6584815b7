import { LRUCache } from "lru-cache";

/** At some hundred bytes each, a few MiB at most. */
const MAX_ROWS = 10_000;

/**
 * Rows that were read since the last write of the index. They are available without a promise and
 * always current, because every write clears them all; writers need not know which rows they affect.
 */
export class RecentRows<Row extends object> {
  readonly #rows = new LRUCache<string, Row>({ max: MAX_ROWS });

  get(key: string): Row | undefined {
    return this.#rows.get(key);
  }

  /** Remembers a row, but not its absence. @returns the row */
  keep(key: string, row: Row | undefined): Row | undefined {
    if (row !== undefined) this.#rows.set(key, row);
    return row;
  }

  clear(): void {
    if (this.#rows.size > 0) this.#rows.clear();
  }
}
