/** More would take a noticeable time; the files of engines are far shorter. */
const MAX_COMPARED = 4_000_000;

/**
 * Returns the lines of two texts, each with `-` if only the first has it, `+` if only the second has
 * it, and a blank otherwise.
 */
export function lineDifference(from: string, to: string): readonly string[] {
  const [before, after] = [linesOf(from), linesOf(to)];
  const common = longestCommon(before, after);
  const out: string[] = [];
  let [i, j] = [0, 0];
  for (const line of [...common, undefined]) {
    while (i < before.length && before[i] !== line) out.push(`-${before[i++]}`);
    while (j < after.length && after[j] !== line) out.push(`+${after[j++]}`);
    if (line === undefined) break;
    out.push(` ${line}`);
    i += 1;
    j += 1;
  }
  return out;
}

function linesOf(text: string): readonly string[] {
  if (text === "") return [];
  return text.replace(/\n$/, "").split("\n");
}

/** Returns a longest list of lines that both have in this order; none if the texts are too long. */
function longestCommon(
  before: readonly string[],
  after: readonly string[],
): readonly string[] {
  const width = after.length + 1;
  if ((before.length + 1) * width > MAX_COMPARED) return [];
  // The length of the longest common list of both ends, from each pair of lines.
  const lengths = new Uint32Array((before.length + 1) * width);
  const at = (i: number, j: number): number => lengths[i * width + j] ?? 0;
  for (let i = before.length - 1; i >= 0; i -= 1) {
    for (let j = after.length - 1; j >= 0; j -= 1) {
      lengths[i * width + j] =
        before[i] === after[j]
          ? at(i + 1, j + 1) + 1
          : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const common: string[] = [];
  let [i, j] = [0, 0];
  while (i < before.length && j < after.length) {
    const line = before[i];
    if (line !== undefined && line === after[j]) {
      common.push(line);
      i += 1;
      j += 1;
    } else if (at(i + 1, j) >= at(i, j + 1)) {
      i += 1;
    } else {
      j += 1;
    }
  }
  return common;
}
