import { randomUUID } from "node:crypto";
import type { Database } from "better-sqlite3";
import type { Clock } from "../../../telemetry/clock.ts";
import type { Logger } from "../../../telemetry/logger.ts";
import { BackgroundIndex } from "./background-index.ts";
import type { Ballast } from "../root/ballast.ts";
import type { DiskLayout } from "../root/disk-layout.ts";
import { forwardTo } from "../../forward-index.ts";
import { IndexAudit } from "../upkeep/index-audit.ts";
import type { MetadataIndex } from "../../metadata-index.ts";
import {
  IN_MEMORY,
  moveIndexAside,
  openSqliteIndex,
} from "./open-sqlite-index.ts";
import type { RootWatch } from "../root/root-watch.ts";
import type { RootsJournal } from "../upkeep/roots-journal.ts";

export interface KeptIndexOptions {
  readonly layout: DiskLayout;
  readonly clock: Clock;
  readonly log: Pick<Logger, "info" | "warn" | "error">;
  readonly journal: RootsJournal;
  readonly ballast: Ballast;
  readonly watch: Pick<RootWatch, "isAway" | "isHereNow">;
  /** The index turned out to be damaged and a new, empty one is in its place: it wants to be filled. */
  readonly onReplaced: () => void;
}

interface Opened {
  readonly index: MetadataIndex;
  readonly database: Database;
  /** Absent for an index in memory. */
  readonly background: BackgroundIndex | undefined;
  audit: IndexAudit | undefined;
  readonly movedAsideTo: string | undefined;
  readonly isTemporary: boolean;
}

/**
 * The index of a storage root as long as the process lives: whoever holds {@link KeptIndex.index}
 * goes on with a new one when the file turns out to be damaged.
 */
export class KeptIndex {
  /** Passes every call on to the index in force; while the root is away it knows nothing. */
  readonly index: MetadataIndex;
  /** This process's; a clean stop leaves it in the index and beside it. */
  readonly runId: string = randomUUID();
  /** What the last process left in the index. */
  readonly lastRunId: string | undefined;
  /** The file was new, or in the place of a damaged one, and was not filled to the end since. */
  readonly isNew: boolean;
  readonly #options: KeptIndexOptions;
  #opened: Opened;
  #isReplacing = false;
  #isClosed = false;

  /** @throws IndexError when the file is of a newer program or can't be opened */
  constructor(options: KeptIndexOptions) {
    this.#options = options;
    const { log, layout } = options;
    const opened = this.#open(layout.indexFile);
    this.#opened = opened;
    if (opened.movedAsideTo !== undefined) {
      log.error(
        { path: opened.movedAsideTo },
        "the index was damaged: a new one is started",
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

  get audit(): IndexAudit {
    this.#opened.audit ??= new IndexAudit(this.#opened.database);
    return this.#opened.audit;
  }

  /** It ends with the process: what the file holds is not what this process knew. */
  get isTemporary(): boolean {
    return this.#opened.isTemporary;
  }

  /** The index has all that is known: from here on only a clean stop's mark tells more of it. */
  markWhole(): void {
    writeRunId(this.#opened.database, this.runId);
  }

  /** The index has less than the journal, until {@link markWhole}: also for the next start. */
  markPartial(): void {
    writeRunId(this.#opened.database, "");
  }

  /** What is wrong with the file, read beside the requests. @throws IndexError when it could not be read */
  findDamage(isQuick: boolean): Promise<readonly string[]> {
    return this.#opened.background?.findDamage(isQuick) ?? Promise.resolve([]);
  }

  /** Puts a new index in the place of a damaged one. */
  async replace(cause: unknown): Promise<void> {
    if (this.#isReplacing || this.#isClosed) return;
    this.#isReplacing = true;
    const { log, onReplaced } = this.#options;
    try {
      await this.#opened.background?.close();
      // The root may be another process's by the time that a new one would be open.
      if (this.#isClosed || !this.#options.watch.isHereNow()) return;
      // It is closed when this returns, and nothing else runs until the new one is there.
      void this.#opened.index.close().catch(() => undefined);
      const opened = this.#openAnew();
      this.#opened = opened;
      log.error(
        { err: cause, path: opened.movedAsideTo },
        "the index was damaged: a new one is started",
      );
      this.#warnIfTemporary(opened);
      onReplaced();
    } catch (error) {
      log.error({ err: error }, "the damaged index could not be replaced");
    } finally {
      this.#isReplacing = false;
    }
  }

  /** Where no other file can take the damaged one's place, one in memory serves: a closed one never would again. */
  #openAnew(): Opened {
    const { layout, clock, log } = this.#options;
    try {
      const movedAsideTo = moveIndexAside(layout.indexFile, clock.nowMs());
      return { ...this.#open(layout.indexFile), movedAsideTo };
    } catch (error) {
      log.error(
        { err: error },
        "no new file can take the damaged index's place",
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

  /** Writes what waits and closes the file, which ends its log. */
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
    });
    const isAlone =
      opened.database.pragma("locking_mode", { simple: true }) === "exclusive";
    if (!opened.isTemporary && !isAlone) {
      background = new BackgroundIndex(path);
    }
    return { ...opened, background, audit: undefined };
  }
}

/** Empty in a new index; undefined where it can't be read, which the checks will tell more of. */
function readRunId(database: Database): string | undefined {
  try {
    const runId = database.prepare("SELECT run_id FROM state").pluck().get();
    return typeof runId === "string" ? runId : undefined;
  } catch {
    return undefined;
  }
}

/** On a full disk the old one stays; then the mark of a clean stop is that of another run. */
function writeRunId(database: Database, runId: string): void {
  try {
    database.prepare("UPDATE state SET run_id = ?").run(runId);
  } catch {
    // Nothing is lost but a shorter next start.
  }
}
