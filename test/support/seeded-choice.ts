/** Numbers between 0 and 1 that are the same for the same seed. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    // Mulberry32.
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** From `ENTREPOT_SEED`, to run a failure again; else another one each time. */
export function chooseSeed(): number {
  const given = Number(process.env["ENTREPOT_SEED"]);
  return Number.isSafeInteger(given) && given > 0
    ? given
    : Math.floor(Math.random() * 2 ** 31) + 1;
}

/** A part of the list, at least one, in its order. */
export function choosePart<T>(
  list: readonly T[],
  part: number,
  random: () => number,
): readonly T[] {
  if (part >= 1) return list;
  const chosen = list.filter(() => random() < part);
  const [first] = list;
  return chosen.length > 0 || first === undefined ? chosen : [first];
}
