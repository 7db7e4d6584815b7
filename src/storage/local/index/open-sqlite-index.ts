import { lstatSync, renameSync } from "node:fs";
import Database from "better-sqlite3";
import {
  type Clock,
  type Schedule,
  scheduleUnref,
} from "../../../telemetry/clock.ts";
import { IndexError, type MetadataIndex } from "../../metadata-index.ts";
import { migrate } from "./migrations.ts";
import { createPrivateFile } from "../root/private-file.ts";
import type { RootChange } from "../upkeep/roots-journal.ts";
import { isCorruption, sqliteCode } from "./index-transactions.ts";
import { createSqliteMetadataIndex } from "./sqlite-metadata-index.ts";

/**
 * Before it two connections that write and checkpoint at once could damage a WAL database.
 *
 * @see https://www.sqlite.org/wal.html#walresetbug
 */
const OLDEST_SQLITE = "3.51.3";
/** SQLite waits on the main thread: a lock that somebody holds for longer is tried again later. */
const BUSY_TIMEOUT_MS = 5;
/** What is left of the log where it is begun again. */
const WAL_LIMIT_BYTES = 1024 * 1024;
/** A checkpoint on the thread that serves requests: only where the one beside it has failed for long. */
const LAST_RESORT_CHECKPOINT_PAGES = 16_384;
/** Where no thread beside it can open the file. */
const LONE_CHECKPOINT_PAGES = 1_000;
const PAGE_CACHE_KIB = 8 * 1024;
/** Free pages below it are room for what comes. */
const LEAST_FREE_BYTES = 16 * 1024 * 1024;
/** More would keep a start waiting. */
const MOST_USED_BYTES = 32 * 1024 * 1024;

/** SQLite's name for a database without a file. */
export const IN_MEMORY = ":memory:";

export interface OpenSqliteIndexOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly schedule?: Schedule;
  /** Reads the whole file for damage first. */
  readonly isSuspect?: boolean;
  readonly onCorrupt?: (error: unknown) => void;
  readonly onWritten?: () => void;
  readonly onFull?: () => void;
  readonly onRootChange?: (change: RootChange) => void;
}

export interface OpenedSqliteIndex {
  readonly index: MetadataIndex;
  /** Closed with the index. */
  readonly database: Database.Database;
  /** Where a damaged file was moved to; the index is then new and empty. */
  readonly movedAsideTo: string | undefined;
  /** There was no room for a file: it lives in memory, and ends with the process. */
  readonly isTemporary: boolean;
}

/** @throws IndexError when the file is of a newer program or can't be opened; a damaged one is moved aside */
export function openSqliteIndex(
  options: OpenSqliteIndexOptions,
): OpenedSqliteIndex {
  const { path, clock, schedule = scheduleUnref } = options;
  let movedAsideTo: string | undefined;
  let database: Database.Database;
  try {
    try {
      database = openWhereRoom(path, options.isSuspect ?? false);
    } catch (error) {
      if (!isCorruption(error)) throw error;
      movedAsideTo = moveIndexAside(path, clock.nowMs());
      database = openWhereRoom(path, false);
    }
  } catch (error) {
    if (error instanceof IndexError) throw error;
    throw new IndexError(`${path}: ${sqliteCode(error)}`, { cause: error });
  }
  shrink(database);
  const index = createSqliteMetadataIndex({
    database,
    schedule,
    onCorrupt: options.onCorrupt ?? (() => undefined),
    onWritten: options.onWritten ?? (() => undefined),
    onFull: options.onFull ?? (() => undefined),
    onRootChange: options.onRootChange ?? (() => undefined),
  });
  return { index, database, movedAsideTo, isTemporary: database.memory };
}

/**
 * A full disk keeps nobody from starting: SQLite needs room for the memory that connections share,
 * but not while it owns the file alone, and none at all in memory.
 */
function openWhereRoom(path: string, isSuspect: boolean): Database.Database {
  const ways = [
    () => openDatabase(path, { isSuspect }),
    () => openDatabase(path, { isSuspect, isExclusive: true }),
  ];
  for (const open of ways) {
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
 * A folder, or anything else that SQLite can't open, in the place of one of its files is damage
 * like any other. A link is left to SQLite.
 */
function requireFiles(path: string): void {
  for (const suffix of ["", "-wal", "-shm"]) {
    const stat = lstatSync(path + suffix, { throwIfNoEntry: false });
    if (stat === undefined || stat.isFile() || stat.isSymbolicLink()) continue;
    throw new Database.SqliteError(
      `${path}${suffix} is not a file`,
      "SQLITE_CORRUPT",
    );
  }
}

/** A database with all settings and the newest schema. @throws SQLite's errors, IndexError */
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
 * A file never shrinks while it is open: what went leaves pages that are used again. Where most of a
 * large one is such pages, as after a flood, a start rewrites the rest, which takes no longer
 * than half a second.
 */
function shrink(database: Database.Database): void {
  const read = (name: string): number =>
    Number(database.pragma(name, { simple: true }));
  const pageBytes = read("page_size");
  const freeBytes = read("freelist_count") * pageBytes;
  const usedBytes = read("page_count") * pageBytes - freeBytes;
  const isWorthIt = freeBytes >= LEAST_FREE_BYTES && freeBytes > usedBytes;
  if (database.memory || !isWorthIt || usedBytes > MOST_USED_BYTES) return;
  try {
    // A temporary file may have no folder that takes it.
    database.pragma("temp_store = MEMORY");
    database.exec("VACUUM");
    database.pragma("wal_checkpoint(TRUNCATE)");
  } catch {
    // On a full disk it stays as large as it is.
  }
}

function requireSqlite(database: Database.Database): void {
  const version = database
    .prepare("SELECT sqlite_version()")
    .pluck()
    .get() as string;
  if (version.localeCompare(OLDEST_SQLITE, "en", { numeric: true }) < 0) {
    throw new IndexError(
      `SQLite ${version} can damage the index: at least ${OLDEST_SQLITE} is needed`,
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
 * With what SQLite keeps beside it, which belongs to the damaged file. Nobody has it open.
 *
 * @returns where it is now
 */
export function moveIndexAside(path: string, nowMs: number): string {
  const stamp = new Date(nowMs).toISOString().replaceAll(/[-:]|\.\d+/g, "");
  const target = `${path}.corrupt-${stamp}`;
  renameSync(path, target);
  for (const suffix of ["-wal", "-shm"]) {
    try {
      renameSync(path + suffix, target + suffix);
    } catch {
      // It is not there, which is as good.
    }
  }
  return target;
}
