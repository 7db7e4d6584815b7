/** @see design.md section 5 */
const MAX_PAGES = 1_000;

/** The way through the pages of a list: no page twice, not elsewhere, and not for ever. */
export class PageWalk {
  /** What to ask next. */
  next: string | URL;
  /** Pages that were read. */
  count = 0;
  isAtEnd = false;
  /** False where the way was cut short. */
  isWhole = true;
  readonly #seen = new Set<string>();

  constructor(first: string) {
    this.next = first;
  }

  /** @param next where the page that was read leads; undefined at the last */
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
