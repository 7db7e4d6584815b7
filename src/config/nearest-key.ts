/**
 * Returns the known key that was most likely meant: equal except for case and separators, or similar.
 *
 * @returns undefined if no key is similar
 */
export function chooseNearestKey(
  key: string,
  knownKeys: readonly string[],
): string | undefined {
  const wanted = fold(key);
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(wanted.length / 3)) + 1;
  for (const known of knownKeys) {
    const distance = editDistance(wanted, fold(known), bestDistance);
    if (distance < bestDistance) {
      best = known;
      bestDistance = distance;
    }
  }
  return best;
}

function fold(key: string): string {
  return key.slice(0, 64).toLowerCase().replace(/[_-]/g, "");
}

/** Counts insertions, deletions, replacements and swaps of neighbours, up to `limit`. */
function editDistance(left: string, right: string, limit: number): number {
  if (Math.abs(left.length - right.length) >= limit) return limit;
  let beforeLast: number[] = [];
  let last = Array.from({ length: right.length + 1 }, (_, index) => index);
  for (let i = 1; i <= left.length; i++) {
    const row = [i];
    for (let j = 1; j <= right.length; j++) {
      const isSame = left[i - 1] === right[j - 1];
      let distance = Math.min(
        (last[j] ?? limit) + 1,
        (row[j - 1] ?? limit) + 1,
        (last[j - 1] ?? limit) + (isSame ? 0 : 1),
      );
      const isSwap =
        i > 1 &&
        j > 1 &&
        left[i - 1] === right[j - 2] &&
        left[i - 2] === right[j - 1];
      if (isSwap) {
        distance = Math.min(distance, (beforeLast[j - 2] ?? limit) + 1);
      }
      row.push(distance);
    }
    beforeLast = last;
    last = row;
  }
  return last[right.length] ?? limit;
}
