import { lstatSync, renameSync } from "node:fs";
import Database from "better-sqlite3";
import {
  type Clock,
  type Schedule,
  scheduleUnref,
} from "../../../telemetry/clock.ts";
import { IndexError } from "../../metadata-index.ts";
import { migrate } from "./migrations.ts";
import { createPrivateFile } from "../root/private-file.ts";
import type { RootChange } from "../upkeep/roots-journal.ts";
import { isCorruption, sqliteCode } from "./index-transactions.ts";
import {
  createSqliteMetadataIndex,
  type SqliteIndex,
} from "./sqlite-metadata-index.ts";
import type { HostedDurability } from "../durable/durable-writes.ts";

/**
 * In older versions two connections that write and checkpoint simultaneously can damage a WAL database.
 *
 * @see https://www.sqlite.org/wal.html#walresetbug
 */
const OLDEST_SQLITE = "3.51.3";
/** SQLite waits on the main thread; longer waits are retries outside SQLite. */
const BUSY_TIMEOUT_MS = 5;
/** The size to which the log is cut when it restarts. */
const WAL_LIMIT_BYTES = 1024 * 1024;
/** Checkpoints on the thread of requests happen only if those of the worker have failed for long. */
const LAST_RESORT_CHECKPOINT_PAGES = 16_384;
/** The limit if no worker can open the file. */
const LONE_CHECKPOINT_PAGES = 1_000;
const PAGE_CACHE_KIB = 8 * 1024;
/** Fewer free bytes are kept for future rows. */
const MIN_FREE_BYTES = 16 * 1024 * 1024;
/** Rewriting more would delay a start. */
const MAX_USED_BYTES = 32 * 1024 * 1024;

/** SQLite's name for a database without a file. */
export const IN_MEMORY = ":memory:";

export interface OpenSqliteIndexOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly schedule?: Schedule;
  /** Whether to check the whole file for damage first. */
  readonly isSuspect?: boolean;
  readonly onCorrupt?: (error: unknown) => void;
  readonly onWritten?: () => void;
  readonly onFull?: () => void;
  readonly onRootChange?: (change: RootChange) => void;
  /** Absent: rows of hosted repositories are not synced, and have no lines. */
  readonly durability?: HostedDurability;
}

export interface OpenedSqliteIndex {
  readonly index: SqliteIndex;
  /** Closed with the index. */
  readonly database: Database.Database;
  /** The new path of a damaged file; the index is then new and empty. */
  readonly movedAsideTo: string | undefined;
  /** The disk had no room for a file: the index is in memory and ends with the process. */
  readonly isTemporary: boolean;
}

/**
 * Opens or creates the index. A damaged file is moved aside.
 *
 * @throws IndexError if a newer version wrote the file, or it can't be opened
 */
export function openSqliteIndex(
  options: OpenSqliteIndexOptions,
): OpenedSqliteIndex {
  const { path, clock, schedule = scheduleUnref } = options;
  let movedAsideTo: string | undefined;
  let database: Database.Database;
  try {
    try {
      database = openWithinSpace(path, options.isSuspect ?? false);
    } catch (error) {
      if (!isCorruption(error)) throw error;
      movedAsideTo = moveIndexAside(path, clock.nowMs());
      database = openWithinSpace(path, false);
    }
  } catch (error) {
    if (error instanceof IndexError) throw error;
    throw new IndexError(`${path}: ${sqliteCode(error)}`, { cause: error });
  }
  shrink(database);
  const index = createSqliteMetadataIndex({
    database,
    schedule,
    clock,
    onCorrupt: options.onCorrupt ?? (() => undefined),
    onWritten: options.onWritten ?? (() => undefined),
    onFull: options.onFull ?? (() => undefined),
    onRootChange: options.onRootChange ?? (() => undefined),
    ...(options.durability === undefined
      ? {}
      : { durability: options.durability }),
  });
  return { index, database, movedAsideTo, isTemporary: database.memory };
}

/**
 * Opens the index even on a full disk. SQLite needs disk space for the memory that connections
 * share, but not with exclusive access to the file, and none for a database in memory.
 */
function openWithinSpace(path: string, isSuspect: boolean): Database.Database {
  const attempts = [
    () => openDatabase(path, { isSuspect }),
    () => openDatabase(path, { isSuspect, isExclusive: true }),
  ];
  for (const open of attempts) {
    try {
      return open();
    } catch (error) {
      if (!NO_ROOM.has(sqliteCode(error))) throw error;
    }
  }
  return openDatabase(IN_MEMORY);
}

const NO_ROOM = new Set([
  "ENOSPC",
  "EDQUOT",
  "SQLITE_FULL",
  "SQLITE_IOERR_SHMSIZE",
  "SQLITE_IOERR_SHMOPEN",
]);

/**
 * Treats a folder, or anything else that SQLite can't open, at the path of one of its files as
 * damage. SQLite itself judges links.
 */
function requireFiles(path: string): void {
  for (const suffix of ["", "-wal", "-shm"]) {
    const stat = lstatSync(path + suffix, { throwIfNoEntry: false });
    if (stat === undefined || stat.isFile() || stat.isSymbolicLink()) continue;
    throw new Database.SqliteError(
      `got something else at ${path}${suffix}; expected a file`,
      "SQLITE_CORRUPT",
    );
  }
}

/** Opens a database with all settings and the newest schema. @throws SQLite's errors, IndexError */
export function openDatabase(
  path: string,
  {
    isSuspect = false,
    isExclusive = false,
  }: { isSuspect?: boolean; isExclusive?: boolean } = {},
): Database.Database {
  if (path !== IN_MEMORY) {
    requireFiles(path);
    createPrivateFile(path);
  }
  const database = new Database(path, { timeout: BUSY_TIMEOUT_MS });
  try {
    if (isExclusive) database.pragma("locking_mode = EXCLUSIVE");
    requireSqlite(database);
    // `mmap_size` stays 0: a damaged or full disk would end the process instead of a query.
    database.pragma("journal_mode = WAL");
    database.pragma("synchronous = NORMAL");
    database.pragma(`journal_size_limit = ${WAL_LIMIT_BYTES}`);
    const pages = isExclusive
      ? LONE_CHECKPOINT_PAGES
      : LAST_RESORT_CHECKPOINT_PAGES;
    database.pragma(`wal_autocheckpoint = ${pages}`);
    database.pragma(`cache_size = -${PAGE_CACHE_KIB}`);
    database.pragma("foreign_keys = ON");
    database.pragma("trusted_schema = OFF");
    database.pragma("cell_size_check = ON");
    if (isSuspect) requireIntegrity(database);
    migrate(database);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

/**
 * Rewrites a large file that consists mostly of free pages, for example after a flood of names. A file
 * never shrinks while it is open; its free pages are reused. Takes at most half a second.
 */
function shrink(database: Database.Database): void {
  const read = (name: string): number =>
    Number(database.pragma(name, { simple: true }));
  const pageBytes = read("page_size");
  const freeBytes = read("freelist_count") * pageBytes;
  const usedBytes = read("page_count") * pageBytes - freeBytes;
  const isWorthIt = freeBytes >= MIN_FREE_BYTES && freeBytes > usedBytes;
  if (database.memory || !isWorthIt || usedBytes > MAX_USED_BYTES) return;
  try {
    // There may be no writable folder for a temporary file.
    database.pragma("temp_store = MEMORY");
    database.exec("VACUUM");
    database.pragma("wal_checkpoint(TRUNCATE)");
  } catch {
    // On a full disk the file keeps its size.
  }
}

function requireSqlite(database: Database.Database): void {
  const version = database
    .prepare("SELECT sqlite_version()")
    .pluck()
    .get() as string;
  if (version.localeCompare(OLDEST_SQLITE, "en", { numeric: true }) < 0) {
    throw new IndexError(
      `got SQLite ${version}; expected ${OLDEST_SQLITE} or later, because older versions can damage the index`,
    );
  }
}

function requireIntegrity(database: Database.Database): void {
  const finding = database.pragma("quick_check(1)", { simple: true });
  if (finding !== "ok") {
    throw new Database.SqliteError(String(finding), "SQLITE_CORRUPT");
  }
}

/**
 * Renames a damaged index together with its log files. The index must not be open.
 *
 * @returns the new path
 */
export function moveIndexAside(path: string, nowMs: number): string {
  const stamp = new Date(nowMs).toISOString().replaceAll(/[-:]|\.\d+/g, "");
  const target = `${path}.corrupt-${stamp}`;
  renameSync(path, target);
  for (const suffix of ["-wal", "-shm"]) {
    try {
      renameSync(path + suffix, target + suffix);
    } catch {
      // Absent.
    }
  }
  return target;
}
