import { stat } from "node:fs/promises";
import { extname } from "node:path";
import type { Readable } from "node:stream";
import { readTextFile, resolvePath } from "../../config/files/files.ts";
import type { ListFormat, ListText } from "../../images/lists/list-entry.ts";
import { MAX_WARM_BYTES } from "../../images/warm/warm-request.ts";
import { sizeText } from "../output/amounts.ts";
import { Failed } from "../images/image-backend.ts";

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
  const { cwd, home, stdin, format } = options;
  const lists: ListText[] = [];
  const refs: string[] = [];
  for (const arg of args) {
    if (arg === "-") {
      if (lists.some(({ name }) => name === "-")) {
        throw new Failed(2, "got - twice; expected standard input once");
      }
      lists.push({ name: "-", text: await readStandardInput(stdin), format });
      continue;
    }
    const path = resolvePath(arg, cwd, home);
    if (!(await isList(arg, path))) {
      refs.push(arg);
      continue;
    }
    const read = await readTextFile(path, MAX_WARM_BYTES);
    if (!read.isRead) {
      throw new Failed(
        2,
        `${arg}: got ${read.seen}; expected a readable list of images`,
      );
    }
    lists.push({ name: arg, text: read.text, format });
  }
  if (format !== undefined && lists.length === 0) {
    throw new Failed(
      2,
      `--format: got no list among the arguments; expected a file or -`,
    );
  }
  return { lists, refs };
}

async function isList(arg: string, path: string): Promise<boolean> {
  if (PATH.test(arg)) return true;
  if (!/[/\\]/.test(arg) && extname(arg) === "") return false;
  const found = await stat(path).catch(() => undefined);
  if (found === undefined && LIST_NAME.test(arg)) {
    throw new Failed(2, `${arg}: no such file; expected a list of images`);
  }
  // A folder may have the name of a registry.
  return found !== undefined && !found.isDirectory();
}

/** Reads a list from standard input. @throws Failed if it is too long, or not UTF-8 */
export async function readStandardInput(stdin: Readable): Promise<string> {
  const parts: Buffer[] = [];
  let sizeBytes = 0;
  for await (const part of stdin) {
    const bytes = Buffer.from(part as Buffer);
    sizeBytes += bytes.length;
    if (sizeBytes > MAX_WARM_BYTES) {
      throw new Failed(
        2,
        `-: got more than ${sizeText(MAX_WARM_BYTES)}; expected a shorter list`,
      );
    }
    parts.push(bytes);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(
      Buffer.concat(parts),
    );
  } catch {
    throw new Failed(2, "-: got bytes that are not UTF-8; expected a list");
  }
}
