import { lstat, stat } from "node:fs/promises";
import { lstatSync, statSync } from "node:fs";

/** Device and inode of what stands at a path, as in `2049:131077`; equal as long as it is the same thing. */
export type FileIdentity = string;

interface Numbers {
  readonly dev: bigint;
  readonly ino: bigint;
}

function identity({ dev, ino }: Numbers): FileIdentity {
  return `${dev}:${ino}`;
}

/** Of the folder that a path leads to, links followed. @throws the system's errors */
export async function identifyFolder(path: string): Promise<FileIdentity> {
  return identity(await stat(path, { bigint: true }));
}

/** Of the entry itself. @throws the system's errors */
export async function identifyFile(path: string): Promise<FileIdentity> {
  return identity(await lstat(path, { bigint: true }));
}

/** Undefined if nothing can be seen there; on the calling thread. */
export function identifyFolderNow(path: string): FileIdentity | undefined {
  try {
    return identity(statSync(path, { bigint: true }));
  } catch {
    return undefined;
  }
}

/** As {@link identifyFolderNow}, of the entry itself. */
export function identifyFileNow(path: string): FileIdentity | undefined {
  try {
    return identity(lstatSync(path, { bigint: true }));
  } catch {
    return undefined;
  }
}
