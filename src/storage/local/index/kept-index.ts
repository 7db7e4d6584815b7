import { randomUUID } from "node:crypto";
import type { Database } from "better-sqlite3";
import type { Clock } from "../../../telemetry/clock.ts";
import type { Logger } from "../../../telemetry/logger.ts";
import { BackgroundIndex } from "./background-index.ts";
import type { Ballast } from "../root/ballast.ts";
import type { DiskLayout } from "../root/disk-layout.ts";
import type { FileSystem } from "../root/file-system.ts";
import { forwardTo } from "../../forward-index.ts";
import { IndexAudit } from "../upkeep/index-audit.ts";
import type { MetadataIndex } from "../../metadata-index.ts";
import {
  IN_MEMORY,
  moveIndexAside,
  openSqliteIndex,
} from "./open-sqlite-index.ts";
import type { SqliteIndex } from "./sqlite-metadata-index.ts";
import type { HostedRecovery } from "./hosted-index/hosted-recovery.ts";
import { WalSync } from "../durable/wal-sync.ts";
import type { RootWatch } from "../root/root-watch.ts";
import type { RootsJournal } from "../upkeep/roots-journal.ts";

export interface KeptIndexOptions {
  readonly layout: DiskLayout;
  readonly fileSystem: FileSystem;
  readonly clock: Clock;
  readonly log: Pick<Logger, "info" | "warn" | "error">;
  readonly journal: RootsJournal;
  readonly ballast: Ballast;
  readonly watch: Pick<RootWatch, "isAway" | "isHereNow">;
  /** Called when a damaged index was replaced by an empty one, which must be filled. */
  readonly onReplaced: () => void;
}

interface Opened {
  readonly index: SqliteIndex;
  readonly database: Database;
  /** Absent for an index in memory. */
  readonly background: BackgroundIndex | undefined;
  audit: IndexAudit | undefined;
  readonly movedAsideTo: string | undefined;
  readonly isTemporary: boolean;
}

/**
 * The index of a storage root for the lifetime of the process. When the file is found damaged, a new
 * one replaces it, and users of {@link KeptIndex.index} continue with that.
 */
export class KeptIndex {
  /** Forwards every call to the open index; rejects while the root is not available. */
  readonly index: MetadataIndex;
  /** The id of this run; a clean stop leaves it in the index and in the clean marker. */
  readonly runId: string = randomUUID();
  /** The run id that the last process left in the index. */
  readonly lastRunId: string | undefined;
  /** The file is new, or replaced a damaged one, and was not filled completely since. */
  readonly isNew: boolean;
  readonly #options: KeptIndexOptions;
  #opened: Opened;
  readonly #wal: WalSync;
  #isReplacing = false;
  #isClosed = false;

  /** @throws IndexError if a newer version wrote the file, or it can't be opened */
  constructor(options: KeptIndexOptions) {
    this.#options = options;
    const { log, layout, fileSystem } = options;
    this.#wal = new WalSync({
      layout,
      fileSystem,
      current: () => this.#opened,
    });
    const opened = this.#open(layout.indexFile);
    this.#opened = opened;
    if (opened.movedAsideTo !== undefined) {
      log.error(
        { path: opened.movedAsideTo },
        "the index was damaged; created a new one at start",
      );
    }
    this.#warnIfTemporary(opened);
    this.lastRunId = readRunId(opened.database);
    this.isNew = this.lastRunId === "";
    this.index = forwardTo(() =>
      options.watch.isAway ? undefined : this.#opened.index,
    );
  }

  get database(): Database {
    return this.#opened.database;
  }

  get hostedRecovery(): HostedRecovery {
    return this.#opened.index.hostedRecovery;
  }

  get audit(): IndexAudit {
    this.#opened.audit ??= new IndexAudit(this.#opened.database);
    return this.#opened.audit;
  }

  /** The index is in memory and ends with the process; the file does not have its rows. */
  get isTemporary(): boolean {
    return this.#opened.isTemporary;
  }

  /** Records that the index is complete. */
  markWhole(): void {
    writeRunId(this.#opened.database, this.runId);
  }

  /** Records, also for the next start, that the index has less than the journal until {@link markWhole}. */
  markPartial(): void {
    writeRunId(this.#opened.database, "");
  }

  /** Checks the file in the background and returns its faults. @throws IndexError if it could not be read */
  findDamage(isQuick: boolean): Promise<readonly string[]> {
    return this.#opened.background?.findDamage(isQuick) ?? Promise.resolve([]);
  }

  /** Replaces a damaged index by a new one. */
  async replace(cause: unknown): Promise<void> {
    if (this.#isReplacing || this.#isClosed) return;
    this.#isReplacing = true;
    const { log, onReplaced } = this.#options;
    try {
      await this.#opened.background?.close();
      // Meanwhile another process may have acquired the root.
      if (this.#isClosed || !this.#options.watch.isHereNow()) return;
      // Closes synchronously, so that no call can run before the new index is open.
      void this.#opened.index.close().catch(() => undefined);
      const opened = this.#openReplacement();
      this.#opened = opened;
      log.error(
        { err: cause, path: opened.movedAsideTo },
        "the index was damaged; replaced it while running",
      );
      this.#warnIfTemporary(opened);
      onReplaced();
    } catch (error) {
      log.error({ err: error }, "could not replace the damaged index");
    } finally {
      this.#isReplacing = false;
    }
  }

  /** Opens an index in memory if the damaged file can't be replaced. */
  #openReplacement(): Opened {
    const { layout, clock, log } = this.#options;
    try {
      const movedAsideTo = moveIndexAside(layout.indexFile, clock.nowMs());
      return { ...this.#open(layout.indexFile), movedAsideTo };
    } catch (error) {
      log.error(
        { err: error },
        "could not create a file in place of the damaged index",
      );
      return this.#open(IN_MEMORY);
    }
  }

  #warnIfTemporary({ isTemporary }: Opened): void {
    if (!isTemporary) return;
    this.#options.log.warn(
      { root: this.#options.layout.root },
      "the index is kept in memory until the next start",
    );
  }

  /** Writes what is pending and closes the file, which ends its log. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#opened.background?.close();
    await this.#opened.index.close();
  }

  #open(path: string): Opened {
    const { clock, journal, ballast } = this.#options;
    let background: BackgroundIndex | undefined;
    const opened = openSqliteIndex({
      path,
      clock,
      onCorrupt: (error) => void this.replace(error),
      onWritten: () => background?.noteWrite(),
      onFull: () => ballast.release(),
      onRootChange: (change) => journal.note(change),
      durability: {
        appendSynced: (roots) => journal.appendSynced(roots),
        syncRows: () => this.#wal.sync(),
        doubt: () => journal.doubt(),
      },
    });
    const isExclusive =
      opened.database.pragma("locking_mode", { simple: true }) === "exclusive";
    if (!opened.isTemporary && !isExclusive) {
      background = new BackgroundIndex(path);
    }
    return { ...opened, background, audit: undefined };
  }
}

/** Returns an empty text for a new index; undefined if it can't be read, which the checks then report. */
function readRunId(database: Database): string | undefined {
  try {
    const runId = database.prepare("SELECT run_id FROM state").pluck().get();
    return typeof runId === "string" ? runId : undefined;
  } catch {
    return undefined;
  }
}

/** On a full disk the old id stays; the next start then does not accept the clean marker. */
function writeRunId(database: Database, runId: string): void {
  try {
    database.prepare("UPDATE state SET run_id = ?").run(runId);
  } catch {
    // The next start takes longer, nothing else.
  }
}
