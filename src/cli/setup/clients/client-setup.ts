/** A file of an engine, as the mirror's clients need it. */
export interface ClientFile {
  /** Absolute. */
  readonly path: string;
  /** The content where no such file exists. */
  readonly text: string;
  /**
   * Merges the set-up into an existing file that has other authors too; absent: the file belongs to
   * this command alone.
   */
  readonly merge?: (current: string) => MergedText;
  /** The command that makes the engine read the file; absent: it reads it at each pull. */
  readonly restart?: string;
}

export type MergedText =
  | { readonly isMerged: true; readonly text: string }
  /** `got X; expected Y`, or the lines to add by hand. */
  | { readonly isMerged: false; readonly flaw: string };

/** The complete set-up of an engine. */
export interface ClientSetup {
  readonly files: readonly ClientFile[];
  /** What files cannot hold, such as a log-in. */
  readonly notes: readonly string[];
}

/**
 * The first line of the files that belong to this command. Certificates have it too: readers of PEM
 * ignore text outside of its blocks.
 */
export const MARK =
  "# Written by entrepot client-config, which replaces the whole file.";

/** Returns whether the file was written by this command. */
export function isOwn(text: string): boolean {
  return text.startsWith(`${MARK}\n`);
}

export function markedFile(
  path: string,
  text: string,
  restart?: string,
): ClientFile {
  const marked = { path, text: `${MARK}\n${text}` };
  return restart === undefined ? marked : { ...marked, restart };
}
