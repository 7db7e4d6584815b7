import { readFileSync, rmSync, writeFileSync } from "node:fs";
import Database from "better-sqlite3";
import { StorageError } from "../../blob-store.ts";
import type { DiskLayout } from "./disk-layout.ts";
import { RootInUseError } from "../../storage-root-errors.ts";
import { systemCode } from "./file-system.ts";
import { identifyFileNow } from "./file-identity.ts";
import { createPrivateFile } from "./private-file.ts";

export interface InstanceLock {
  /** Unlocks the root. Later calls have no effect, even if another process holds the root by then. */
  release(): void;
}

/** Keeps the databases referenced: a collected one would be closed, and its lock released. */
const held = new Set<Database.Database>();

/**
 * Makes this process the only one on a storage root. The system's lock is on a file that only SQLite
 * opens (closing any second descriptor would release it). It ends with the process in any case, and a
 * leftover file has no meaning.
 *
 * @throws RootInUseError; StorageError if the file can't be created
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
    // The database stays empty, but a journal file would be written, which fails on a full disk.
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
      // A different file at this path belongs to another process.
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

/** Records the process id for the message to a second process. A full disk does not prevent the start. */
function writeOwner(layout: DiskLayout): void {
  try {
    writeFileSync(layout.lockOwnerFile, `${process.pid}\n`, { mode: 0o600 });
  } catch {
    removeOwner(layout);
  }
}

/** A file that can't be removed is harmless: it is not the lock. */
function removeOwner(layout: DiskLayout): void {
  try {
    rmSync(layout.lockOwnerFile, { force: true });
  } catch {
    // The file system is read-only.
  }
}
