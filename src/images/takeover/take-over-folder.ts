import { DistributionFolder, FolderLimitError } from "./distribution-folder.ts";
import { takeRepository } from "./take-repository.ts";
import type { TakeoverCounts, TakeoverTarget } from "./takeover.ts";
import { TakeoverTally, type TallySinks } from "./takeover-tally.ts";

export interface TakeoverOptions extends TallySinks {
  /** The result of `findDistributionTree`. */
  readonly tree: string;
  readonly target: TakeoverTarget;
  readonly signal: AbortSignal;
  /** Default: a million. */
  readonly maxLinks?: number;
}

/**
 * Takes over everything in the folder of a Distribution registry, one repository after the other.
 * What is stored already, as after an interruption, is not read again.
 *
 * @throws StorageError, IndexError; the signal's reason
 */
export async function takeOverFolder(
  options: TakeoverOptions,
): Promise<TakeoverCounts> {
  const { tree, target, signal } = options;
  const total = await new DistributionFolder(tree, ignoreProblem).countLinks();
  const tally = new TakeoverTally(total, options);
  const folder = new DistributionFolder(
    tree,
    (problem) => tally.report(problem),
    options.maxLinks,
  );
  const parts = { folder, target, tally, signal };
  for await (const name of folder.repositories()) {
    signal.throwIfAborted();
    try {
      await takeRepository(parts, await folder.readRepository(name));
    } catch (error) {
      if (!(error instanceof FolderLimitError)) throw error;
      tally.problem("unknown", name, error.message);
    }
  }
  return tally.counts;
}

/** The same problems are reported when the links are read. */
function ignoreProblem(): void {}
