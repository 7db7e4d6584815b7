/** A page of a list in ASCII order, as the distribution-spec defines it. */
export interface Page<T> {
  readonly entries: readonly T[];
  /** The `last` of the next page; undefined at the end of the list. */
  readonly nextLast: string | undefined;
}

/** The page that a client requests; an absent `n` means all entries. */
export interface PageRequest {
  readonly n: number | undefined;
  /** Exclusive. */
  readonly last: string | undefined;
}

/**
 * Cuts a page out of a sorted list, in a time that depends on the page only. `n` of 0 is an empty
 * page without a next one.
 *
 * @param isWhole false if the list itself was cut: more entries follow its end
 * @see https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-tags
 */
export function cutPage<T extends string>(
  sorted: readonly T[],
  request: PageRequest,
  isWhole = true,
): Page<T> {
  const { n, last } = request;
  if (n === 0) return { entries: [], nextLast: undefined };
  const first = last === undefined ? 0 : countUpTo(sorted, last);
  const entries = sorted.slice(first, n === undefined ? undefined : first + n);
  const end = entries.at(-1);
  const hasMore = first + entries.length < sorted.length || !isWhole;
  return { entries, nextLast: hasMore ? end : undefined };
}

/** Counts the entries up to `last` by binary search: a list may have a million. */
function countUpTo(sorted: readonly string[], last: string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const entry = sorted[middle];
    if (entry !== undefined && entry > last) high = middle;
    else low = middle + 1;
  }
  return low;
}
