/** @see design.md section 5 */
const MAX_PAGES = 1_000;

/** Walks through the pages of a list: no page twice, no other origin, a bounded number. */
export class PageWalk {
  /** The target of the next request. */
  next: string | URL;
  /** The number of pages read. */
  count = 0;
  isAtEnd = false;
  /** False if the list was cut. */
  isWhole = true;
  readonly #seen = new Set<string>();

  constructor(first: string) {
    this.next = first;
  }

  /** @param next the link of the page that was read; undefined on the last page */
  advance(next: URL | "foreign" | undefined): void {
    this.count += 1;
    this.isAtEnd = true;
    if (next === undefined) return;
    if (
      next === "foreign" ||
      this.#seen.has(next.href) ||
      this.count >= MAX_PAGES
    ) {
      this.isWhole = false;
      return;
    }
    this.#seen.add(next.href);
    this.next = next;
    this.isAtEnd = false;
  }
}
