/** A page of a list in ASCII order, as the distribution-spec cuts it. */
export interface Page<T> {
  readonly entries: readonly T[];
  /** Present where more follow: what `last` of the next page is. */
  readonly nextLast: string | undefined;
}

/** What a client asks for; absent `n` means all. */
export interface PageRequest {
  readonly n: number | undefined;
  /** Exclusive. */
  readonly last: string | undefined;
}

/**
 * Cuts a page out of a sorted list, in time for the page alone. `n` of 0 is an empty page without a
 * next one.
 *
 * @param isWhole false where the list itself was cut: there is always more after its end
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

/** How many entries are not after `last`, by halves: a list may have a million. */
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
