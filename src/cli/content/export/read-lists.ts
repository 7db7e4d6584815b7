import { homedir } from "node:os";
import type { Readable } from "node:stream";
import { readTextFile, resolvePath } from "../../../config/files/files.ts";
import type { ListText } from "../../../images/lists/list-entry.ts";
import { MAX_WARM_BYTES } from "../../../images/warm/warm-request.ts";
import { Failed } from "../../images/image-backend.ts";
import { readStandardInput } from "../warm-lists.ts";

/**
 * Reads lists of references.
 *
 * @param files their names; `-` is standard input
 * @throws Failed if a list cannot be read or is too large
 */
export async function readLists(
  files: readonly string[],
  { cwd, stdin }: { readonly cwd: string; readonly stdin: Readable },
): Promise<readonly ListText[]> {
  const lists: ListText[] = [];
  for (const name of files) {
    if (name === "-") {
      if (lists.some((list) => list.name === "-")) {
        throw new Failed(2, "got - twice; expected standard input once");
      }
      lists.push({ name, text: await readStandardInput(stdin) });
      continue;
    }
    const path = resolvePath(name, cwd, homedir());
    const read = await readTextFile(path, MAX_WARM_BYTES);
    if (!read.isRead) {
      throw new Failed(
        2,
        `${name}: got ${read.seen}; expected a readable list of images`,
      );
    }
    lists.push({ name, text: read.text });
  }
  return lists;
}
