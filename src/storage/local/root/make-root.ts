import { constants } from "node:fs";
import { access, mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import type { StorageError } from "../../blob-store.ts";
import { StorageRootError } from "../../storage-root-errors.ts";
import { asStorageError, systemCode } from "./file-system.ts";

/** Faults of the disk, not of the set-up: the content is out of reach and may become available again. */
const DISK_FAULTS = new Set([
  "ENOSPC",
  "EDQUOT",
  "EROFS",
  "EIO",
  "EREMOTEIO",
  "ESTALE",
  "ETIMEDOUT",
  "ENOTCONN",
  "EHOSTDOWN",
]);
/** Faults of the process and its limits, for any root. */
const PROCESS_FAULTS = new Set(["EMFILE", "ENFILE", "ENOMEM", "EAGAIN"]);
const SQLITE_DISK_FAULT = /^SQLITE_(?:FULL|IOERR)/;

/**
 * Returns the code of a fault of the disk itself, for which a mirror starts without its storage.
 *
 * @returns undefined for any other error
 */
export function diskFault(error: unknown): string | undefined {
  for (let cause = error, depth = 0; depth < 5; depth += 1) {
    if (!(cause instanceof Error)) return undefined;
    const code = systemCode(cause);
    if (DISK_FAULTS.has(code) || SQLITE_DISK_FAULT.test(code)) return code;
    cause = cause.cause;
  }
  return undefined;
}

/**
 * Creates the root's folder if it is absent. Its parent is never created: below an unmounted mount
 * point that would place the cache on the wrong disk.
 *
 * @throws StorageRootError; StorageError if the disk is at fault
 */
export async function makeRoot(root: string): Promise<void> {
  try {
    // Not recursive: Node hangs if a parent exists in which no folder can be created.
    await mkdir(root, { mode: 0o700 });
  } catch (error) {
    if (systemCode(error) !== "EEXIST") throw await rootFault(root, error);
  }
  try {
    if (!(await stat(root)).isDirectory()) {
      throw new StorageRootError(root, "a folder; it is a file");
    }
    await access(root, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    if (error instanceof StorageRootError) throw error;
    throw await rootFault(root, error);
  }
}

/**
 * Returns the error for a fault in or below the root: a StorageRootError if an operator must repair
 * it, a StorageError if the disk or this process is at fault.
 */
export async function rootFault(
  root: string,
  error: unknown,
): Promise<StorageRootError | StorageError> {
  const cause = asStorageError(`opening the storage root ${root}`, error);
  if (diskFault(error) !== undefined || PROCESS_FAULTS.has(cause.code)) {
    return cause;
  }
  const expected = await expectation(root, cause);
  return new StorageRootError(root, expected, { cause });
}

async function expectation(root: string, cause: StorageError): Promise<string> {
  const { code, operation } = cause;
  const failure = ` (${operation} failed with ${code})`;
  switch (code) {
    case "EACCES":
    case "EPERM":
      return `a folder that user ${process.getuid?.() ?? "of this process"} may read and write${failure}`;
    case "ENOENT": {
      const parent = dirname(root);
      return (await isFolder(parent))
        ? `a folder that can be created; ${parent} does not allow it`
        : `a folder in an existing one; ${parent} does not exist`;
    }
    case "ENOTDIR":
    case "EEXIST":
    case "EISDIR":
    case "ELOOP":
      return `a folder, with folders below it${failure}`;
    case "SQLITE_CANTOPEN":
    case "SQLITE_READONLY":
    case "SQLITE_READONLY_DBMOVED":
    case "SQLITE_READONLY_DIRECTORY":
    case "SQLITE_PERM":
      return `files that user ${process.getuid?.() ?? "of this process"} may read and write${failure}`;
    default:
      return `a folder that can be used${failure}`;
  }
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch {
    return false;
  }
}
