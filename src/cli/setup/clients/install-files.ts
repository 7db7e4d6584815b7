import {
  chmod,
  chown,
  lstat,
  mkdir,
  rename,
  rm,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { readTextFile } from "../../../config/files/files.ts";
import { type ClientFile, isOwn } from "./client-setup.ts";

const MAX_FILE_BYTES = 1_048_576;
/** The certificate of an authority and the address of a mirror are no secrets. */
const MODE = 0o644;

/** What the installation of a file changes. */
export interface PlannedFile {
  readonly file: ClientFile;
  /** With the root folder in front. */
  readonly path: string;
  /** Undefined: there is no such file. */
  readonly current: string | undefined;
  readonly text: string;
}

/** A file that the installation leaves alone. */
export interface RefusedFile {
  readonly path: string;
  /** `got X; expected Y`. */
  readonly flaw: string;
}

export interface InstallPlan {
  readonly files: readonly PlannedFile[];
  readonly refused: readonly RefusedFile[];
}

/**
 * Compares the files with those below a root folder. A file of another author is refused unless it
 * can be merged or `force` is given.
 */
export async function planInstall(
  files: readonly ClientFile[],
  { root, force }: { readonly root: string; readonly force: boolean },
): Promise<InstallPlan> {
  const planned: PlannedFile[] = [];
  const refused: RefusedFile[] = [];
  for (const file of files) {
    const path = join(root, file.path);
    const found = await planFile(file, path, force);
    if ("flaw" in found) refused.push(found);
    else planned.push(found);
  }
  return { files: planned, refused };
}

async function planFile(
  file: ClientFile,
  path: string,
  force: boolean,
): Promise<PlannedFile | RefusedFile> {
  const read = await readTextFile(path, MAX_FILE_BYTES);
  if (!read.isRead) {
    return read.isMissing && !(await isThere(path))
      ? { file, path, current: undefined, text: file.text }
      : { path, flaw: `got ${read.seen}; expected a regular file` };
  }
  if ((await lstat(path)).isSymbolicLink()) {
    return { path, flaw: "got a symbolic link; expected a regular file" };
  }
  const current = read.text;
  if (file.merge !== undefined) {
    const merged = file.merge(current);
    return merged.isMerged
      ? { file, path, current, text: merged.text }
      : { path, flaw: merged.flaw };
  }
  if (current === file.text || isOwn(current) || force) {
    return { file, path, current, text: file.text };
  }
  return {
    path,
    flaw: "got a file that this command did not write; expected none, or --force",
  };
}

/** A symbolic link without a target is there too. */
async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch {
    return false;
  }
}

/** Writes the files that differ; a reader finds the old or the new text, never a part. */
export async function writePlanned(
  files: readonly PlannedFile[],
): Promise<void> {
  for (const { path, current, text } of files) {
    if (current === text) continue;
    await mkdir(dirname(path), { recursive: true });
    const made = `${path}.entrepot-new`;
    try {
      await rm(made, { force: true });
      await writeFile(made, text, { flag: "wx", mode: MODE });
      // The umask has taken bits away.
      await chmod(made, MODE);
      if (current !== undefined) {
        const { mode, uid, gid } = await lstat(path);
        await chown(made, uid, gid);
        await chmod(made, mode & 0o7777);
      }
      await rename(made, path);
    } catch (error) {
      await rm(made, { force: true });
      throw error;
    }
  }
}
