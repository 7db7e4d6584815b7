import { createReadStream, type Stats } from "node:fs";
import { lstat, opendir, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Readable } from "node:stream";
import {
  type BundleMember,
  INDEX_FILE,
  LAYOUT_FILE,
} from "../../../images/bundles/bundle.ts";
import { packBundle } from "../../../images/bundles/export/bundle-tar.ts";
import { DIGEST_ALGORITHMS } from "../../../oci/digest.ts";
import type { CommandIo } from "../../declare-command.ts";
import { Failed } from "../../images/image-backend.ts";

/** An opened bundle: the bytes of an archive. */
export interface OpenedBundle {
  readonly body: Readable;
  /** About the size of the archive; undefined: unknown. */
  readonly sizeBytes: number | undefined;
  /** Whether {@link sizeBytes} is exact. */
  readonly isExact: boolean;
}

/** Fewer calls of the system than with the default. */
const READ_BYTES = 1024 * 1024;

/**
 * Opens a file, a folder or standard input. A folder is packed into an archive while it is read.
 *
 * @throws Failed
 */
export async function openBundleSource(
  argument: string,
  { stdin, cwd }: Pick<CommandIo, "stdin" | "cwd">,
): Promise<OpenedBundle> {
  if (argument === "-") {
    if (stdin.isTTY === true) {
      throw new Failed(
        2,
        "got a terminal as standard input; expected an archive, as in 'entrepot import - < bundle.tar'",
      );
    }
    return { body: stdin, sizeBytes: undefined, isExact: false };
  }
  const path = resolve(cwd, argument);
  const found = await statBundle(path, argument);
  if (found.isDirectory()) return openFolder(path, argument);
  const isFile = found.isFile();
  const body = createReadStream(path, { highWaterMark: READ_BYTES });
  return {
    body,
    sizeBytes: isFile ? found.size : undefined,
    isExact: isFile,
  };
}

/** @throws Failed if there is no such file or folder */
export async function statBundle(
  path: string,
  argument: string,
): Promise<Stats> {
  try {
    return await stat(path);
  } catch (error) {
    throw unreadable(argument, error);
  }
}

function unreadable(argument: string, error: unknown): Failed {
  const code =
    error instanceof Error && "code" in error ? String(error.code) : "";
  const reason =
    code === "ENOENT" ? "no such file or folder" : `not readable (${code})`;
  return new Failed(2, `${argument}: ${reason}; expected a bundle`);
}

async function openFolder(
  folder: string,
  argument: string,
): Promise<OpenedBundle> {
  const members: BundleMember[] = [];
  for (const name of [LAYOUT_FILE, INDEX_FILE]) {
    const member = await readMember(folder, name);
    if (member !== undefined) members.push(member);
  }
  if (!members.some(({ path }) => path === INDEX_FILE)) {
    throw new Failed(
      2,
      `${argument}: got a folder without ${INDEX_FILE}; expected an OCI image layout (${LAYOUT_FILE}, ${INDEX_FILE}, blobs/)`,
    );
  }
  for (const algorithm of DIGEST_ALGORITHMS) {
    const names = await listNames(join(folder, "blobs", algorithm));
    for (const name of names.sort()) {
      const member = await readMember(folder, `blobs/${algorithm}/${name}`);
      if (member !== undefined) members.push(member);
    }
  }
  const sizeBytes = members.reduce((sum, member) => sum + member.sizeBytes, 0);
  return { body: packBundle(members), sizeBytes, isExact: false };
}

/** @returns no names if there is no such folder */
async function listNames(folder: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const { name } of await opendir(folder)) {
      // Others are not blobs: temporary files of tools.
      if (/^[0-9a-f]+$/.test(name)) names.push(name);
    }
  } catch (error) {
    const isAbsent =
      error instanceof Error && "code" in error && error.code === "ENOENT";
    if (!isAbsent) throw unreadable(folder, error);
  }
  return names;
}

/**
 * @returns undefined if there is no such file
 * @throws Failed for a link or a device: nothing outside the folder is read
 */
async function readMember(
  folder: string,
  name: string,
): Promise<BundleMember | undefined> {
  const path = join(folder, name);
  const found = await lstat(path).catch(() => undefined);
  if (found === undefined) return undefined;
  if (!found.isFile()) {
    throw new Failed(
      1,
      `${name}: got ${found.isSymbolicLink() ? "a link" : "no file"}; expected a file`,
    );
  }
  const { size } = found;
  return {
    path: name,
    sizeBytes: size,
    open: () => readFile(path, size),
  };
}

/** Reads as many bytes as the header of the member has, also of a file that grows. */
function readFile(path: string, sizeBytes: number): AsyncIterable<Uint8Array> {
  return sizeBytes === 0
    ? Readable.from([])
    : createReadStream(path, { end: sizeBytes - 1, highWaterMark: READ_BYTES });
}
