import type { Readable } from "node:stream";
import { readTextFile, resolvePath } from "../../config/files/files.ts";
import type { ListFormat, ListText } from "../../images/lists/list-entry.ts";
import { MAX_WARM_BYTES } from "../../images/warm/warm-request.ts";
import { Failed } from "../images/image-backend.ts";
import { sizeText } from "../output/amounts.ts";

/**
 * Reads lists of references.
 *
 * @param names files; `-` is standard input
 * @throws Failed if a list cannot be read, is too long or not UTF-8
 */
export async function readLists(
  names: readonly string[],
  options: {
    readonly cwd: string;
    readonly home: string;
    readonly stdin: Readable;
    readonly format?: ListFormat | undefined;
  },
): Promise<readonly ListText[]> {
  const { cwd, home, stdin, format } = options;
  const lists: ListText[] = [];
  for (const name of names) {
    if (name === "-" && lists.some((list) => list.name === "-")) {
      throw new Failed(2, "got - twice; expected standard input once");
    }
    const text =
      name === "-"
        ? await readStandardInput(stdin)
        : await readListFile(name, resolvePath(name, cwd, home));
    lists.push({ name, text, format });
  }
  return lists;
}

async function readListFile(name: string, path: string): Promise<string> {
  const read = await readTextFile(path, MAX_WARM_BYTES);
  if (read.isRead) return read.text;
  throw new Failed(
    2,
    `${name}: got ${read.seen}; expected a readable list of images`,
  );
}

async function readStandardInput(stdin: Readable): Promise<string> {
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
