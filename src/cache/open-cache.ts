import { existsSync, rmSync, writeFileSync } from "node:fs";
import type { Clock } from "../telemetry/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { BlobStore } from "./blob-store.ts";
import { diskLayout } from "./disk-layout.ts";
import {
  asStorageError,
  type FileSystem,
  nodeFileSystem,
} from "./file-system.ts";
import { createFsBlobStore } from "./fs-blob-store.ts";
import { acquireInstanceLock, type InstanceLock } from "./instance-lock.ts";
import type { MetadataIndex } from "./metadata-index.ts";
import { openSqliteIndex } from "./open-sqlite-index.ts";
import {
  isSameBoot,
  prepareFolders,
  readBootId,
  sweepPartials,
} from "./storage-root.ts";

export interface OpenCacheOptions {
  /** Absolute. Made where it is absent. */
  readonly root: string;
  readonly clock: Clock;
  readonly log: Pick<Logger, "info" | "warn" | "error">;
  readonly fileSystem?: FileSystem;
  /** In place of the machine's own, which changes with every boot. */
  readonly bootId?: string;
}

export interface OpenedCache {
  readonly blobs: BlobStore;
  readonly index: MetadataIndex;
  readonly lock: InstanceLock;
  /** Writes what waits, ends the hash worker, and lets go of the root last. */
  close(): Promise<void>;
}

/**
 * Opens a storage root and brings it in order. No blob is looked at: a row without its file is
 * found by the first request for it, a file without its row is taken over by the fill of it.
 *
 * @throws RootInUseError; StorageError with the path that is at fault; IndexError
 */
export async function openCache(
  options: OpenCacheOptions,
): Promise<OpenedCache> {
  const { root, clock, log, fileSystem = nodeFileSystem } = options;
  const layout = diskLayout(root);
  await fileSystem.makeFolder(root).catch((error: unknown) => {
    throw asStorageError(`making the folder ${root}`, error);
  });
  const lock = acquireInstanceLock(layout);
  try {
    if (!(await prepareFolders(layout, fileSystem))) {
      log.warn({ root }, "no room in the storage root: pulls pass through");
    }
    const bootId = options.bootId ?? (await readBootId());
    const isSame = await isSameBoot(layout, fileSystem, bootId);
    const suspectFile = `${layout.indexFile}.suspect`;
    const { index, movedAsideTo, isTemporary } = openSqliteIndex({
      path: layout.indexFile,
      clock,
      isSuspect:
        existsSync(suspectFile) ||
        (!isSame && existsSync(`${layout.indexFile}-wal`)),
      onCorrupt: (error) => {
        if (existsSync(suspectFile)) return;
        log.error(
          { err: error },
          "the index is damaged: start again to repair",
        );
        markSuspect(suspectFile);
      },
    });
    rmSync(suspectFile, { force: true });
    if (movedAsideTo !== undefined) {
      log.error(
        { path: movedAsideTo },
        "the index was damaged: a new one is started",
      );
    }
    if (isTemporary) {
      log.warn(
        { root },
        "no room for the index: it is kept in memory until the next start",
      );
    }
    const keptPartials = await sweepPartials(layout, fileSystem, {
      isSame,
      bootId,
    }).catch(async (error: unknown) => {
      await index.close();
      throw error;
    });
    log.info({ root, keptPartials }, "cache opened");
    const blobs = createFsBlobStore({ layout, fileSystem });
    return {
      blobs,
      index,
      lock,
      async close() {
        try {
          await blobs.close();
          await index.close();
        } finally {
          lock.release();
        }
      },
    };
  } catch (error) {
    lock.release();
    throw error;
  }
}

function markSuspect(path: string): void {
  try {
    writeFileSync(path, "");
  } catch {
    // The next damage that is found tries again.
  }
}
