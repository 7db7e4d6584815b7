import { constants } from "node:fs";
import type { Database } from "better-sqlite3";
import { syncFolder } from "../blobs/blob-files.ts";
import type { DiskLayout } from "../root/disk-layout.ts";
import { asStorageError, type FileSystem } from "../root/file-system.ts";

const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW;

export interface WalSyncParts {
  readonly layout: Pick<DiskLayout, "root" | "indexFile">;
  readonly fileSystem: Pick<
    FileSystem,
    "open" | "close" | "fdatasync" | "fsync"
  >;
  /** The open index: another one if it was replaced. */
  readonly current: () => {
    readonly database: Database;
    /** The index is in memory. */
    readonly isTemporary: boolean;
  };
}

/**
 * Makes committed rows of the index durable without blocking the event loop. With
 * `synchronous=NORMAL` a commit is in the log and not synced; syncing the log afterwards has the
 * effect of `synchronous=FULL`. All calls that arrive while a sync runs share the next one.
 *
 * The log's file has no locks, so that closing another descriptor of it releases none.
 *
 * @see ../../../decisions/0014-wal-synced-off-the-event-loop.md
 */
export class WalSync {
  readonly #parts: WalSyncParts;
  #waiting: PromiseWithResolvers<void>[] = [];
  #isRunning = false;
  /** The index whose files have durable names. */
  #named: Database | undefined;

  constructor(parts: WalSyncParts) {
    this.#parts = parts;
  }

  /**
   * Resolves when every row that was committed before the call is on disk.
   *
   * @throws StorageError
   */
  sync(): Promise<void> {
    const waiter = Promise.withResolvers<void>();
    this.#waiting.push(waiter);
    if (!this.#isRunning) void this.#run();
    return waiter.promise;
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    while (this.#waiting.length > 0) {
      const group = this.#waiting;
      this.#waiting = [];
      try {
        await this.#syncNow();
        for (const { resolve } of group) resolve();
      } catch (error) {
        const fault = asStorageError("sync the log of the index", error);
        for (const { reject } of group) reject(fault);
      }
    }
    this.#isRunning = false;
  }

  async #syncNow(): Promise<void> {
    const { layout, fileSystem, current } = this.#parts;
    const { database, isTemporary } = current();
    // The journal has the hosted lines; nothing else outlives an index in memory.
    if (isTemporary) return;
    const fd = await fileSystem.open(`${layout.indexFile}-wal`, OPEN_FLAGS);
    try {
      await fileSystem.fdatasync(fd);
    } finally {
      await fileSystem.close(fd).catch(() => undefined);
    }
    if (this.#named === database) return;
    await syncFolder(fileSystem, layout.root);
    this.#named = database;
  }
}
