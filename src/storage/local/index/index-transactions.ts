import { setTimeout as delay } from "node:timers/promises";
import type { Database, Statement } from "better-sqlite3";
import { IndexError } from "../../metadata-index.ts";

/** Three seconds in total: a thread that syncs to a slow disk may hold the lock that long. */
const BUSY_RETRY_DELAYS_MS = [
  5, 10, 20, 40, 75, 150, 300, 400, 500, 500, 500, 500,
];

export interface IndexTransactionsOptions {
  readonly database: Database;
  /** Called when SQLite finds the file damaged. */
  readonly onCorrupt: (error: unknown) => void;
  /** Called when rows were changed: rows that were read before may be outdated. */
  readonly onChanged: () => void;
  /** Called after a transaction that wrote. */
  readonly onWritten: () => void;
  /** Frees space on a full disk if possible; the write is then retried once. */
  readonly onFull: () => void;
  readonly wait?: (delayMs: number) => Promise<unknown>;
}

/** Runs reads and writes on a connection. Every failure becomes an IndexError. */
export class IndexTransactions {
  readonly #options: IndexTransactionsOptions;
  readonly #countChanges: Statement<[], { readonly changes: number }>;
  /** The retries of a write ran out; until the lock is free each further write is tried once. */
  #isBlocked = false;

  constructor(options: IndexTransactionsOptions) {
    this.#options = options;
    this.#countChanges = options.database.prepare(
      `SELECT total_changes() AS changes`,
    );
  }

  /**
   * Runs one transaction that takes the write lock first, so that it can't fail to commit. While
   * another thread or process holds the lock it is retried without blocking the event loop. After the
   * retries of one write ran out, later writes are tried once each until the lock is free.
   */
  write<T>(method: string, work: () => T): Promise<T> {
    return this.#attempt(method, () => this.#transact(work));
  }

  /** Runs a write of columns that no row in memory has, so that those rows stay. */
  writeUnread<T>(method: string, work: () => T): Promise<T> {
    return this.#attempt(method, () => this.#transact(work, false));
  }

  /** Runs a write, rolls it back and returns its result. */
  rehearse<T>(method: string, work: () => T): Promise<T> {
    return this.#attempt(method, () => this.#rollBack(work));
  }

  #attempt<T>(method: string, run: () => T): Promise<T> {
    return this.read(method, () => {
      try {
        return run();
      } catch (error) {
        if (!isBusy(error)) throw error;
        return this.#retry(method, run, error);
      }
    });
  }

  async #retry<T>(method: string, run: () => T, busy: unknown): Promise<T> {
    const { wait = delay } = this.#options;
    let error = busy;
    for (const delayMs of BUSY_RETRY_DELAYS_MS) {
      if (this.#isBlocked) break;
      await wait(delayMs);
      try {
        return run();
      } catch (again) {
        error = again;
        if (!isBusy(again)) break;
      }
    }
    this.#isBlocked = isBusy(error);
    throw this.#asIndexError(method, error);
  }

  #transact<T>(work: () => T, isRead = true): T {
    const transaction = this.#options.database.transaction(work);
    let result: T;
    const before = this.#changes();
    try {
      result = transaction.immediate();
    } catch (error) {
      if (sqliteCode(error) !== "SQLITE_FULL") throw error;
      // SQLite has rolled the transaction back.
      this.makeRoom();
      result = transaction.immediate();
    }
    this.#isBlocked = false;
    // A transaction may find nothing to change.
    if (this.#changes() !== before) {
      if (isRead) this.#options.onChanged();
      this.#options.onWritten();
    }
    return result;
  }

  #rollBack<T>(work: () => T): T {
    const rolledBack = new Error("rolled back");
    const results: T[] = [];
    try {
      this.#options.database
        .transaction(() => {
          results.push(work());
          throw rolledBack;
        })
        .immediate();
    } catch (error) {
      if (error !== rolledBack) throw error;
    }
    this.#isBlocked = false;
    const [result] = results;
    return result as T;
  }

  /** Returns how many rows this connection has changed since it was opened. */
  #changes(): number {
    return this.#countChanges.get()?.changes ?? 0;
  }

  /**
   * On a full disk the log can't grow, so that even a DELETE fails. Releases the space that is
   * reserved for it, and restarts the log. This is the only checkpoint on the thread of requests.
   */
  makeRoom(): void {
    this.#options.onFull();
    try {
      this.#options.database.pragma("wal_checkpoint(TRUNCATE)");
    } catch {
      // The retried write fails like the first one.
    }
  }

  read<T>(method: string, work: () => T | Promise<T>): Promise<T> {
    try {
      return Promise.resolve(work());
    } catch (error) {
      return Promise.reject(this.#asIndexError(method, error));
    }
  }

  #asIndexError(method: string, error: unknown): IndexError {
    if (isCorruption(error)) this.#options.onCorrupt(error);
    return error instanceof IndexError
      ? error
      : new IndexError(`${method}: ${sqliteCode(error)}`, {
          cause: error,
          isLocked: isBusy(error),
        });
  }
}

/** Returns the code of a SQLite error, for example `SQLITE_BUSY`, or the message of another error. */
export function sqliteCode(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return "code" in error && typeof error.code === "string"
    ? error.code
    : error.message;
}

function isBusy(error: unknown): boolean {
  return sqliteCode(error).startsWith("SQLITE_BUSY");
}

/** Returns whether the error says that the file is damaged or is not a database. */
export function isCorruption(error: unknown): boolean {
  const code = sqliteCode(error);
  return code.startsWith("SQLITE_CORRUPT") || code === "SQLITE_NOTADB";
}
