import { stat } from "node:fs/promises";
import { extname } from "node:path";
import type { Readable } from "node:stream";
import { resolvePath } from "../../config/files/files.ts";
import type { ListFormat, ListText } from "../../images/lists/list-entry.ts";
import { Failed } from "../images/image-backend.ts";
import { readLists } from "./read-lists.ts";

/** The extensions of lists. No image has such a name without a tag. */
const LIST_NAME = /^[^:@]+\.(?:ya?ml|json|txt|list|lst)$/i;
/** A text that begins like this is never a reference. */
const PATH = /^(?:\/|\.{1,2}\/|~\/)/;

/** The arguments of `warm`, sorted by kind. */
export interface WarmArguments {
  readonly lists: readonly ListText[];
  readonly refs: readonly string[];
}

/**
 * Reads the lists among the arguments. An argument is a list if it is `-`, if it begins like a path, or
 * if it has a path separator or an extension and a file of that name exists; any other is a reference,
 * unless it has the extension of a list.
 *
 * @throws Failed if a list is missing or cannot be read
 */
export async function readWarmArguments(
  args: readonly string[],
  options: {
    readonly cwd: string;
    readonly home: string;
    readonly stdin: Readable;
    readonly format: ListFormat | undefined;
  },
): Promise<WarmArguments> {
  const names: string[] = [];
  const refs: string[] = [];
  for (const arg of args) {
    if (await isList(arg, options)) names.push(arg);
    else refs.push(arg);
  }
  if (options.format !== undefined && names.length === 0) {
    throw new Failed(
      2,
      `--format: got no list among the arguments; expected a file or -`,
    );
  }
  return { lists: await readLists(names, options), refs };
}

async function isList(
  arg: string,
  { cwd, home }: { readonly cwd: string; readonly home: string },
): Promise<boolean> {
  if (arg === "-" || PATH.test(arg) || LIST_NAME.test(arg)) return true;
  if (!/[/\\]/.test(arg) && extname(arg) === "") return false;
  const path = resolvePath(arg, cwd, home);
  const found = await stat(path).catch(() => undefined);
  // A folder may have the name of a registry.
  return found !== undefined && !found.isDirectory();
}
