import type { HostedTag } from "../../storage/hosted-index.ts";

type Pushed = Pick<HostedTag, "tag" | "pushedAtMs">;

/** The newest tags of a rule by the time of their push, and by name if the times are equal. */
export class NewestTags {
  readonly #limit: number;
  /** A binary heap with the oldest tag first: each entry is older than those at 2 i + 1 and 2 i + 2. */
  readonly #heap: Pushed[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  add({ tag, pushedAtMs }: Pushed): void {
    const heap = this.#heap;
    const pushed = { tag, pushedAtMs };
    if (heap.length < this.#limit) {
      this.#rise(pushed);
      return;
    }
    const [oldest] = heap;
    if (oldest !== undefined && isOlder(oldest, pushed)) this.#sink(pushed);
  }

  /** Returns whether a tag is among the newest that were added, or newer than they are. */
  has(pushed: Pushed): boolean {
    const [oldest] = this.#heap;
    if (oldest === undefined) return false;
    return this.#heap.length < this.#limit || !isOlder(pushed, oldest);
  }

  #rise(pushed: Pushed): void {
    const heap = this.#heap;
    let at = heap.push(pushed) - 1;
    for (;;) {
      const aboveAt = (at - 1) >> 1;
      const above = heap[aboveAt];
      if (at === 0 || above === undefined || !isOlder(pushed, above)) break;
      heap[at] = above;
      at = aboveAt;
    }
    heap[at] = pushed;
  }

  /** Replaces the oldest tag. */
  #sink(pushed: Pushed): void {
    const heap = this.#heap;
    let at = 0;
    for (;;) {
      let belowAt = 2 * at + 1;
      const [left, right] = [heap[belowAt], heap[belowAt + 1]];
      if (left === undefined) break;
      const isRight = right !== undefined && isOlder(right, left);
      const below = isRight ? right : left;
      if (isRight) belowAt += 1;
      if (!isOlder(below, pushed)) break;
      heap[at] = below;
      at = belowAt;
    }
    heap[at] = pushed;
  }
}

function isOlder(one: Pushed, other: Pushed): boolean {
  return one.pushedAtMs === other.pushedAtMs
    ? one.tag < other.tag
    : one.pushedAtMs < other.pushedAtMs;
}
