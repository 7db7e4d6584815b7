import type { Database } from "better-sqlite3";
import { AccessTimes } from "../../access-times.ts";
import { BlobRows } from "./blob-rows.ts";
import {
  type IndexStatements,
  prepareIndexStatements,
} from "./index-statements.ts";
import { IndexSize } from "./index-size.ts";
import { IndexTransactions } from "./index-transactions.ts";
import { IntentRows } from "./intents.ts";
import type { BlobRow } from "../../blob-index.ts";
import type { TagRow } from "../../tag-index.ts";
import { ReferrerRows } from "./documents/referrer-rows.ts";
import { RecentRows } from "./recent-rows.ts";
import { type Changed, RootChanges } from "./root-changes.ts";
import type { RootChange } from "../upkeep/roots-journal.ts";
import { RecordRows } from "./documents/record-rows.ts";
import { TagListRows } from "./documents/tag-list-rows.ts";
import { SqliteRoots } from "./sqlite-roots.ts";
import { writeUses } from "./use-keys.ts";
import {
  type Clock,
  type Schedule,
  systemClock,
} from "../../../telemetry/clock.ts";
import { HostedCollector } from "./hosted-index/hosted-collection.ts";
import { HostedLists } from "./hosted-index/hosted-lists.ts";
import { prepareHostedStatements } from "./hosted-index/hosted-statements.ts";
import {
  HostedWrites,
  type HostedWritesParts,
} from "./hosted-index/hosted-writes.ts";
import {
  type HostedRecovery,
  type HostedRecoveryParts,
  HostedRecoveryRows,
} from "./hosted-index/hosted-recovery.ts";
import {
  DurableWrites,
  type DurableWritesParts,
  type HostedDurability,
} from "../durable/durable-writes.ts";
import { UnlinkedBlobs } from "./hosted-index/unlinked-blobs.ts";
import { UploadRows } from "./hosted-index/upload-rows.ts";

export interface IndexOptions {
  /** Has the newest schema; closed with the index. */
  readonly database: Database;
  readonly schedule: Schedule;
  readonly clock?: Pick<Clock, "nowMs">;
  /** Called when SQLite finds the file damaged; the index continues as far as it can. */
  readonly onCorrupt: (error: unknown) => void;
  /** Called after each transaction that wrote. */
  readonly onWritten?: () => void;
  /** Frees space on a full disk if possible; the write is then retried once. */
  readonly onFull?: () => void;
  /** Absent: rows of hosted repositories are committed and not synced, and have no lines. */
  readonly durability?: HostedDurability;
  /** Called after a transaction that moved or removed a tag, or changed a pin. */
  readonly onRootChange?: (change: RootChange) => void;
}

/** The parts for hosted repositories. */
export interface HostedParts {
  readonly writes: HostedWrites;
  readonly collector: HostedCollector;
  readonly lists: HostedLists;
  readonly unlinked: UnlinkedBlobs;
  readonly uploads: UploadRows;
  readonly recovery: HostedRecovery;
  /** Runs the writes that are acknowledged only after they are durable. */
  readonly durable: DurableWrites;
}

/** The parts of the SQLite index, over one connection. */
export interface IndexParts {
  readonly statements: IndexStatements;
  readonly intents: IntentRows;
  readonly rows: BlobRows;
  readonly roots: SqliteRoots;
  readonly rootChanges: RootChanges;
  readonly hosted: HostedParts;
  readonly referrers: ReferrerRows;
  readonly tagLists: TagListRows;
  readonly records: RecordRows;
  readonly size: IndexSize;
  readonly accessTimes: Pick<AccessTimes, "note" | "flush" | "settle">;
  readonly transactions: IndexTransactions;
  /** Cleared whenever a row changes. */
  readonly recentTags: RecentRows<TagRow>;
  readonly recentBlobs: RecentRows<BlobRow>;
  /** Runs a write and then reports its changes to the journal. */
  readonly writeRoots: <T>(
    method: string,
    work: () => Changed<T>,
  ) => Promise<T>;
  /** Writes pending uses and closes the connection. Later calls do nothing. */
  readonly close: () => void;
}

export function createIndexParts({
  database,
  schedule,
  clock = systemClock,
  onCorrupt,
  onWritten = () => undefined,
  onFull = () => undefined,
  onRootChange = () => undefined,
  durability = NOT_DURABLE,
}: IndexOptions): IndexParts {
  const statements = prepareIndexStatements(database);
  const intents = new IntentRows(database);
  const rows = new BlobRows(statements, intents);
  const roots = new SqliteRoots(database);
  const recentTags = new RecentRows<TagRow>();
  const recentBlobs = new RecentRows<BlobRow>();
  const transactions = new IndexTransactions({
    database,
    onCorrupt,
    onChanged: () => {
      recentTags.clear();
      recentBlobs.clear();
    },
    onWritten,
    onFull,
  });
  const accessTimes = new AccessTimes((uses) => {
    database
      .transaction(() => {
        writeUses(statements, roots, uses);
      })
      .immediate();
    onWritten();
  }, schedule);
  let isClosed = false;
  return {
    statements,
    intents,
    rows,
    roots,
    referrers: new ReferrerRows(database),
    tagLists: new TagListRows(database),
    records: new RecordRows(database),
    size: new IndexSize(database),
    rootChanges: new RootChanges(statements, roots, rows),
    hosted: createHostedParts(database, {
      statements,
      rows,
      roots,
      nowMs: () => clock.nowMs(),
      transactions,
      durability,
    }),
    accessTimes: {
      note: (key, atMs) => {
        if (!isClosed) accessTimes.note(key, atMs);
      },
      flush: () => accessTimes.flush(),
      settle: () => accessTimes.settle(),
    },
    transactions,
    recentTags,
    recentBlobs,
    writeRoots: async (method, work) => {
      const { result, changes } = await transactions.write(method, work);
      for (const change of changes) onRootChange(change);
      return result;
    },
    close: () => {
      if (isClosed) return;
      accessTimes.flush();
      isClosed = true;
      database.close();
    },
  };
}

function createHostedParts(
  database: Database,
  parts: Omit<HostedWritesParts, "hosted" | "unlinked"> &
    Pick<HostedRecoveryParts, "transactions"> &
    Pick<DurableWritesParts, "durability">,
): HostedParts {
  const hosted = prepareHostedStatements(database);
  const unlinked = new UnlinkedBlobs(database);
  const writes = new HostedWrites({ hosted, unlinked, ...parts });
  const recovery = new HostedRecoveryRows({
    database,
    writes,
    unlinked,
    ...parts,
  });
  return {
    writes,
    collector: new HostedCollector(hosted, writes, parts.roots),
    lists: new HostedLists(hosted),
    unlinked,
    uploads: new UploadRows(database),
    recovery,
    durable: new DurableWrites({
      ...parts,
      readNow: (name) => recovery.readNow(name),
    }),
  };
}

const NOT_DURABLE: HostedDurability = {
  appendSynced: () => Promise.resolve({ settle: () => undefined }),
  syncRows: () => Promise.resolve(),
  doubt: () => () => undefined,
};
