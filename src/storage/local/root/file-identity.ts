import { lstat, stat } from "node:fs/promises";
import { lstatSync, statSync } from "node:fs";

/** Device and inode of the entry at a path, as in `2049:131077`. Equal while it is the same entry. */
export type FileIdentity = string;

interface Numbers {
  readonly dev: bigint;
  readonly ino: bigint;
}

function identity({ dev, ino }: Numbers): FileIdentity {
  return `${dev}:${ino}`;
}

/** Identifies the folder at a path, following links. @throws the system's errors */
export async function identifyFolder(path: string): Promise<FileIdentity> {
  return identity(await stat(path, { bigint: true }));
}

/** Identifies the entry at a path itself. @throws the system's errors */
export async function identifyFile(path: string): Promise<FileIdentity> {
  return identity(await lstat(path, { bigint: true }));
}

/** Identifies a folder on the calling thread; undefined if it is absent or unreadable. */
export function identifyFolderNow(path: string): FileIdentity | undefined {
  try {
    return identity(statSync(path, { bigint: true }));
  } catch {
    return undefined;
  }
}

/** Identifies the entry itself on the calling thread; undefined if it is absent or unreadable. */
export function identifyFileNow(path: string): FileIdentity | undefined {
  try {
    return identity(lstatSync(path, { bigint: true }));
  } catch {
    return undefined;
  }
}
