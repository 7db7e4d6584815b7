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
 * Cuts a page out of a sorted list. `n` of 0 is an empty page without a next one.
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
  const rest =
    last === undefined ? sorted : sorted.filter((entry) => entry > last);
  const entries = n === undefined ? rest : rest.slice(0, n);
  const end = entries.at(-1);
  const hasMore = entries.length < rest.length || !isWhole;
  return { entries, nextLast: hasMore ? end : undefined };
}
