import { readFileSync, rmSync, writeFileSync } from "node:fs";
import Database from "better-sqlite3";
import { StorageError } from "../../blob-store.ts";
import type { DiskLayout } from "./disk-layout.ts";
import { RootInUseError } from "../../storage-root-errors.ts";
import { systemCode } from "./file-system.ts";
import { identifyFileNow } from "./file-identity.ts";
import { createPrivateFile } from "./private-file.ts";

export interface InstanceLock {
  /** The root may be owned by another process afterwards; a second call does nothing to that. */
  release(): void;
}

/** SQLite closes a database that nobody refers to any more, and the lock would go with it. */
const held = new Set<Database.Database>();

/**
 * Makes this process the only one on a storage root. The lock is the system's on a file that only
 * SQLite opens (a second descriptor that somebody closes would let go of it), so it ends with the
 * process however that ends, and a leftover file means nothing.
 *
 * @throws RootInUseError, StorageError when the file can't be made
 */
export function acquireInstanceLock(layout: DiskLayout): InstanceLock {
  let database: Database.Database;
  try {
    createPrivateFile(layout.lockFile);
    database = new Database(layout.lockFile, { timeout: 0 });
  } catch (error) {
    throw new StorageError(`lock of ${layout.lockFile}`, systemCode(error), {
      cause: error,
    });
  }
  try {
    // Nothing is ever written to it, but a journal would be, and could not be on a full disk.
    database.pragma("journal_mode = MEMORY");
    database.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    const code = systemCode(error);
    if (code.startsWith("SQLITE_BUSY")) {
      throw new RootInUseError(layout.root, readOwner(layout));
    }
    throw new StorageError(`lock of ${layout.lockFile}`, code, {
      cause: error,
    });
  }
  held.add(database);
  const identity = identifyFileNow(layout.lockFile);
  writeOwner(layout);
  return {
    release() {
      if (!held.delete(database)) return;
      // Another file there is another process's, in another tree perhaps.
      if (identifyFileNow(layout.lockFile) === identity) removeOwner(layout);
      database.close();
    },
  };
}

function readOwner(layout: DiskLayout): number | undefined {
  try {
    const pid = Number.parseInt(readFileSync(layout.lockOwnerFile, "utf8"), 10);
    return Number.isNaN(pid) ? undefined : pid;
  } catch {
    return undefined;
  }
}

/** For the message of whoever is refused; a disk that is full keeps nobody from starting. */
function writeOwner(layout: DiskLayout): void {
  try {
    writeFileSync(layout.lockOwnerFile, `${process.pid}\n`, { mode: 0o600 });
  } catch {
    removeOwner(layout);
  }
}

/** What can't go is only a word in a message that nobody gets: the lock is not the file. */
function removeOwner(layout: DiskLayout): void {
  try {
    rmSync(layout.lockOwnerFile, { force: true });
  } catch {
    // The file system is read-only by now.
  }
}
