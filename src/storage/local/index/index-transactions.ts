import { setTimeout as delay } from "node:timers/promises";
import type { Database, Statement } from "better-sqlite3";
import { IndexError } from "../../metadata-index.ts";

/** Some three seconds: a thread that syncs to a slow disk may hold the lock for as long. */
const BUSY_RETRY_DELAYS_MS = [
  5, 10, 20, 40, 75, 150, 300, 400, 500, 500, 500, 500,
];

/** Runs reads and writes on a connection; whatever goes wrong comes out as an IndexError. */
export class IndexTransactions {
  readonly #database: Database;
  readonly #countChanges: Statement<[], { readonly changes: number }>;
  readonly #onCorrupt: (error: unknown) => void;
  readonly #onChanged: () => void;
  readonly #onWritten: () => void;
  readonly #onFull: () => void;
  readonly #wait: (delayMs: number) => Promise<unknown>;
  /** The lock was held for longer than anybody waits: until it is free a write is tried once. */
  #isBlocked = false;

  constructor(options: {
    readonly database: Database;
    /** SQLite finds the file damaged. */
    readonly onCorrupt: (error: unknown) => void;
    /** Rows were changed: what was read of them before may be wrong. */
    readonly onChanged: () => void;
    /** A transaction that wrote has ended. */
    readonly onWritten: () => void;
    /** Makes room on a full disk, if it can: the write is tried once more. */
    readonly onFull: () => void;
    readonly wait?: (delayMs: number) => Promise<unknown>;
  }) {
    this.#database = options.database;
    this.#countChanges = options.database.prepare(
      `SELECT total_changes() AS changes`,
    );
    this.#onCorrupt = options.onCorrupt;
    this.#onChanged = options.onChanged;
    this.#onWritten = options.onWritten;
    this.#onFull = options.onFull;
    this.#wait = options.wait ?? delay;
  }

  /**
   * One transaction that takes the write lock at once: none is begun that can't be ended. While
   * another thread or process holds the lock it is tried again, and the loop runs on meanwhile. A
   * pull waits so once: what it writes after that is tried once each, until the lock is free.
   */
  write<T>(method: string, work: () => T): Promise<T> {
    return this.read(method, () => {
      try {
        return this.#transact(work);
      } catch (error) {
        if (!isBusy(error)) throw error;
        return this.#writeLater(method, work, error);
      }
    });
  }

  async #writeLater<T>(
    method: string,
    work: () => T,
    busy: unknown,
  ): Promise<T> {
    let error = busy;
    for (const delayMs of BUSY_RETRY_DELAYS_MS) {
      if (this.#isBlocked) break;
      await this.#wait(delayMs);
      try {
        return this.#transact(work);
      } catch (again) {
        error = again;
        if (!isBusy(again)) break;
      }
    }
    this.#isBlocked = isBusy(error);
    throw this.#asIndexError(method, error);
  }

  #transact<T>(work: () => T): T {
    const transaction = this.#database.transaction(work);
    let result: T;
    const before = this.#changes();
    try {
      result = transaction.immediate();
    } catch (error) {
      if (sqliteCode(error) !== "SQLITE_FULL") throw error;
      // The transaction is rolled back already.
      this.#makeRoom();
      result = transaction.immediate();
    }
    this.#isBlocked = false;
    // Who looks for something to do and finds nothing has written nothing.
    if (this.#changes() !== before) {
      this.#onChanged();
      this.#onWritten();
    }
    return result;
  }

  /** Rows that this connection has changed since it was opened. */
  #changes(): number {
    return this.#countChanges.get()?.changes ?? 0;
  }

  /**
   * On a full disk the log can't grow, and so not even a row can go. What held room for it is given
   * up, and the log is begun anew: the one checkpoint that waits for the disk here.
   */
  #makeRoom(): void {
    this.#onFull();
    try {
      this.#database.pragma("wal_checkpoint(TRUNCATE)");
    } catch {
      // Then the write fails as it did before.
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
    if (isCorruption(error)) this.#onCorrupt(error);
    return error instanceof IndexError
      ? error
      : new IndexError(`${method}: ${sqliteCode(error)}`, {
          cause: error,
          isLocked: isBusy(error),
        });
  }
}

/** The code of a SQLite error, as in `SQLITE_BUSY`; else what the error says. */
export function sqliteCode(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return "code" in error && typeof error.code === "string"
    ? error.code
    : error.message;
}

function isBusy(error: unknown): boolean {
  return sqliteCode(error).startsWith("SQLITE_BUSY");
}

/** The file is damaged, or was never a database. */
export function isCorruption(error: unknown): boolean {
  const code = sqliteCode(error);
  return code.startsWith("SQLITE_CORRUPT") || code === "SQLITE_NOTADB";
}
