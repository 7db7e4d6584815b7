import type { Rig } from "./rig.ts";

export type Unit =
  "requests/s" | "bytes/s" | "seconds" | "bytes" | "requests" | "CPU s/GiB";

/** Samples of one quantity of one contestant, one per round. */
export interface Measure {
  readonly contestant: string;
  readonly what: string;
  readonly unit: Unit;
  readonly samples: readonly number[];
}

/** Required value of a quotient or difference of measures. */
export interface Bar {
  /** For example `by digest ÷ nginx`. */
  readonly text: string;
  readonly value: number;
  readonly demand: "at least" | "at most";
  readonly bar: number;
  readonly aim: number | undefined;
  /** Unit of {@link value}, {@link bar} and {@link aim}; `×` for a quotient. */
  readonly unit: "×" | "ms" | "MiB" | "KiB" | "requests";
}

export interface FigureResult {
  readonly measures: readonly Measure[];
  readonly bars: readonly Bar[];
  /** Remarks that a reader needs to interpret the numbers. */
  readonly notes?: readonly string[];
}

/** One measurement that is taken on every contestant in turn. */
export interface Figure {
  readonly name: string;
  readonly title: string;
  /** Programs that it requires. */
  readonly commands: readonly string[];
  run(rig: Rig): Promise<FigureResult>;
}

/**
 * Runs every contestant once per round, A B C A B C, so that other load on the machine affects all.
 *
 * @returns samples of each contestant in the order of the rounds
 */
export async function alternate<Name extends string>(
  rounds: number,
  contestants: Readonly<Record<Name, (round: number) => Promise<number>>>,
): Promise<Record<Name, number[]>> {
  const entries = Object.entries(contestants) as [
    Name,
    (round: number) => Promise<number>,
  ][];
  const samples = Object.fromEntries(
    entries.map(([name]) => [name, [] as number[]]),
  ) as Record<Name, number[]>;
  for (let round = 0; round < rounds; round++) {
    for (const [name, measure] of entries) {
      samples[name].push(await measure(round));
    }
  }
  return samples;
}

export function median(samples: readonly number[]): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1
    ? upper
    : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

/** Returns the quotient of two medians. */
export function ratio(
  ours: readonly number[],
  theirs: readonly number[],
): number {
  return median(ours) / median(theirs);
}
