import type { Rig } from "./rig.ts";

export type Unit =
  "requests/s" | "bytes/s" | "seconds" | "bytes" | "requests" | "CPU s/GiB";

/** One quantity of one contestant: a sample a round. */
export interface Measure {
  readonly contestant: string;
  readonly what: string;
  readonly unit: Unit;
  readonly samples: readonly number[];
}

/** A figure's demand on a quotient or a difference of measures. */
export interface Bar {
  /** As in `by digest ÷ nginx`. */
  readonly text: string;
  readonly value: number;
  readonly demand: "at least" | "at most";
  readonly bar: number;
  readonly aim: number | undefined;
  /** What {@link value}, {@link bar} and {@link aim} are counted in; `×` for a quotient. */
  readonly unit: "×" | "ms" | "MiB" | "KiB" | "requests";
}

export interface FigureResult {
  readonly measures: readonly Measure[];
  readonly bars: readonly Bar[];
  /** What a reader must know beside the numbers. */
  readonly notes?: readonly string[];
}

/** One thing that is measured, on every contestant in turn. */
export interface Figure {
  readonly name: string;
  readonly title: string;
  /** Programs that it can't do without. */
  readonly commands: readonly string[];
  run(rig: Rig): Promise<FigureResult>;
}

/**
 * Runs every contestant once a round, A B C A B C: what else the machine does meets them all.
 *
 * @returns the samples of each, in the order of the rounds
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

/** The quotient of two medians. */
export function ratio(
  ours: readonly number[],
  theirs: readonly number[],
): number {
  return median(ours) / median(theirs);
}
