import type { ScrubReport } from "../../scrub-report.ts";
import { existsSync } from "node:fs";
import type { Database } from "better-sqlite3";
import type { Clock } from "../../../telemetry/clock.ts";
import { StorageError } from "../../blob-store.ts";
import { type DiskLayout, diskLayout } from "../root/disk-layout.ts";
import { type FileSystem, nodeFileSystem } from "../root/file-system.ts";
import { IndexAudit } from "./index-audit.ts";
import { acquireInstanceLock } from "../root/instance-lock.ts";
import type { BlobRecords } from "../../blob-index.ts";
import type { IndexState } from "../../metadata-index.ts";
import { openLocalStorage } from "../open-local-storage.ts";
import { IN_MEMORY, openDatabase } from "../index/open-sqlite-index.ts";
import { Scrub } from "./scrub.ts";
import { isCorruption } from "../index/index-transactions.ts";
import { createSqliteMetadataIndex } from "../index/sqlite-metadata-index.ts";

export interface ScrubRootOptions {
  /** An absolute path. */
  readonly root: string;
  readonly clock: Clock;
  readonly isRepair: boolean;
  readonly fileSystem?: FileSystem;
  readonly signal?: AbortSignal;
}

/**
 * Scrubs a storage root that is not in use by a mirror. Without repair nothing is changed.
 *
 * @throws RootInUseError, StorageError, IndexError, SQLite's errors
 */
export async function scrubRoot(
  options: ScrubRootOptions,
): Promise<ScrubReport> {
  const {
    root,
    clock,
    isRepair,
    signal,
    fileSystem = nodeFileSystem,
  } = options;
  const layout = diskLayout(root);
  if (!existsSync(root)) throw new StorageError(`opening ${root}`, "ENOENT");
  const lock = acquireInstanceLock(layout);
  try {
    const scan = async (index: OfflineIndex | undefined): Promise<Scrub> => {
      const scrub = new Scrub({
        layout,
        fileSystem,
        clock,
        isRepair,
        isOnline: false,
        ...(index === undefined ? {} : { index }),
        ...(signal === undefined ? {} : { signal }),
      });
      await scrub.run();
      return scrub;
    };
    const index = openIndex(layout, isRepair);
    if (index !== "damaged") {
      try {
        return (await scan(index)).report;
      } finally {
        await index.rows.close();
      }
    }
    if (!isRepair) {
      const scrub = await scan(undefined);
      scrub.noteDamage(false);
      return scrub.report;
    }
  } finally {
    lock.release();
  }
  return scrubRebuilt(options);
}

interface OfflineIndex {
  readonly audit: IndexAudit;
  readonly rows: Pick<
    BlobRecords,
    "adoptBlob" | "forgetBlob" | "noteVerified"
  > &
    Pick<IndexState, "close">;
}

const ignore = (): void => undefined;

/** Scrubs a root with a damaged index. Opening the root replaces the index and fills the new one. */
async function scrubRebuilt({
  root,
  clock,
  fileSystem,
}: ScrubRootOptions): Promise<ScrubReport> {
  const storage = await openLocalStorage({
    root,
    clock,
    log: { info: ignore, warn: ignore, error: ignore },
    ...(fileSystem === undefined ? {} : { fileSystem }),
  });
  try {
    await storage.upkeep.recovered();
    const report = await storage.upkeep.scrub({ isRepair: true });
    return {
      ...report,
      findings: [
        ...report.findings,
        {
          code: "index-damaged",
          path: "index.sqlite",
          digest: null,
          repaired: true,
        },
      ],
    };
  } finally {
    await storage.close();
  }
}

/** @throws IndexError, SQLite's errors other than damage */
function openIndex(
  layout: DiskLayout,
  isRepair: boolean,
): OfflineIndex | "damaged" {
  const exists = existsSync(layout.indexFile);
  let database: Database | undefined;
  try {
    database = openDatabase(exists || isRepair ? layout.indexFile : IN_MEMORY);
    const audit = new IndexAudit(database);
    if (audit.health.findDamage().length > 0) {
      database.close();
      return "damaged";
    }
    const rows = createSqliteMetadataIndex({
      database,
      schedule: () => () => undefined,
      onCorrupt: () => undefined,
    });
    return { audit, rows };
  } catch (error) {
    database?.close();
    if (isCorruption(error)) return "damaged";
    throw error;
  }
}
