import type { ScrubReport } from "../scrub-report.ts";
import type { Digest } from "../../oci/digest.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import { Ballast } from "./root/ballast.ts";
import { type BlobStore, StorageError } from "../blob-store.ts";
import { takeCleanMarker, writeCleanMarker } from "./root/clean-marker.ts";
import { type DiskLayout, diskLayout } from "./root/disk-layout.ts";
import {
  type FileSystem,
  nodeFileSystem,
  systemCode,
} from "./root/file-system.ts";
import { createFsBlobStore } from "./blobs/fs-blob-store.ts";
import { guardFileSystem } from "./root/guarded-file-system.ts";
import type { IndexAudit } from "./upkeep/index-audit.ts";
import {
  acquireInstanceLock,
  type InstanceLock,
} from "./root/instance-lock.ts";
import { KeptIndex } from "./index/kept-index.ts";
import { makeRoot, rootFault } from "./root/make-root.ts";
import { IndexError, type MetadataIndex } from "../metadata-index.ts";
import { RebuildWait, waitForRebuild } from "./upkeep/rebuild-wait.ts";
import { Recovery } from "./upkeep/recovery.ts";
import { type Absence, RootWatch } from "./root/root-watch.ts";
import { RootsJournal } from "./upkeep/roots-journal.ts";
import { Scrub, type ScrubOptions } from "./upkeep/scrub.ts";
import { settleIntents } from "./upkeep/settle-intents.ts";
import { StorageProbe } from "./root/storage-probe.ts";
import {
  isSameBoot,
  prepareFolders,
  readBootId,
  sweepPartials,
} from "./root/storage-root.ts";

const RESTORE_BALLAST_EVERY_MS = 60_000;

export interface OpenCacheOptions {
  /** Absolute. Made where it is absent and its parent is there. */
  readonly root: string;
  readonly clock: Clock;
  readonly log: Pick<Logger, "info" | "warn" | "error">;
  readonly fileSystem?: FileSystem;
  /** In place of the machine's own, which changes with every boot. */
  readonly bootId?: string;
  /** The root is not what was opened any more, or is again. */
  readonly onAbsence?: (absence: Absence | undefined) => void;
}

export interface OpenedCache {
  readonly blobs: BlobStore;
  readonly index: MetadataIndex;
  readonly lock: InstanceLock;
  /** Whether the index is being brought together with the blobs; it serves what it has meanwhile. */
  readonly isRecovering: boolean;
  /** Resolves when nothing is left of that, or it was given up. Never rejects. */
  recovered(): Promise<void>;
  /**
   * Whether the storage takes writes now.
   *
   * @throws StorageError; `ETIMEDOUT` where the disk takes long to say so
   */
  probeStorage(): Promise<void>;
  /** Why the storage is not used: its root is away. Undefined as long as it is there. */
  readonly absence: Absence | undefined;
  /** The disk ran so full that the room kept for the index was given up. */
  readonly isOutOfRoom: boolean;
  /**
   * Compares all blobs and the index beside the requests.
   *
   * @throws StorageError, IndexError, the signal's reason
   */
  scrub(options: OnlineScrubOptions): Promise<ScrubReport>;
  /** The index as a whole, for the background scrub. */
  readonly audit: IndexAudit;
  readonly scrubParts: Omit<ScrubOptions, "isRepair" | "isOnline">;
  /** Lays in again what was given up on a full disk, where there is room. Never rejects. */
  restoreBallast(): Promise<void>;
  /** Writes what waits, ends the threads, marks the end as clean, and lets go of the root last. */
  close(): Promise<void>;
}

export type OnlineScrubOptions = Pick<
  ScrubOptions,
  "isRepair" | "pace" | "signal" | "onDropped"
>;

/**
 * Opens a storage root. What a crash cut off is ended first; after anything but a clean stop the
 * index and the blobs are then compared beside the requests, however many there are.
 *
 * @throws RootInUseError; StorageRootError if an operator must mend the root; StorageError if the disk
 *   is at fault; IndexError
 */
export async function openCache(
  options: OpenCacheOptions,
): Promise<OpenedCache> {
  const { root, clock, log } = options;
  const layout = diskLayout(root);
  await makeRoot(root);
  let lock: InstanceLock | undefined;
  let watch: RootWatch | undefined;
  try {
    lock = acquireInstanceLock(layout);
    const held = lock;
    const watched = new RootWatch({
      layout,
      log,
      onChange: (absence) => {
        options.onAbsence?.(absence);
        if (absence === undefined) void journal.flush();
      },
    });
    watch = watched;
    const fileSystem = guardFileSystem(
      options.fileSystem ?? nodeFileSystem,
      watched,
    );
    const journal = new RootsJournal({
      layout,
      fileSystem,
      clock,
      onObsolete: () => recovery.shrinkJournal(),
    });
    if (!(await prepareFolders(layout, fileSystem))) {
      log.warn({ root }, "no room in the storage root: pulls pass through");
    }
    const bootId = options.bootId ?? (await readBootId());
    const isSame = await isSameBoot(layout, fileSystem, bootId);
    const cleanRunId = await takeCleanMarker(layout, fileSystem);
    const ballast = new Ballast(layout, fileSystem, () => watched.isHereNow());
    const kept = new KeptIndex({
      layout,
      clock,
      log,
      journal,
      ballast,
      watch: watched,
      onReplaced: () => recovery.start({ isSound: true, isLast: false }),
    });
    const { index } = kept;
    const rebuild = new RebuildWait();
    const isStored = (digest: Digest): Promise<boolean> =>
      fileSystem.statPath(layout.blobFile(digest)).then(
        ({ isFile }) => isFile,
        () => false,
      );
    const recovery = new Recovery({
      layout,
      fileSystem,
      clock,
      log,
      kept,
      journal,
      rebuild,
    });
    try {
      const settledFills = await settleIntents({
        layout,
        fileSystem,
        index,
        clock,
      });
      const keptPartials = await sweepPartials(layout, fileSystem, {
        isSame,
        bootId,
      });
      log.info({ root, keptPartials, settledFills }, "cache opened");
    } catch (error) {
      await kept.close();
      throw error;
    }
    const isClean = cleanRunId !== undefined && cleanRunId === kept.lastRunId;
    if (!isClean)
      recovery.start({
        isSound: kept.isNew,
        isLast: !kept.isNew && cleanRunId === undefined,
      });
    else recovery.compact();
    void ballast.restore();
    const ballastTimer = setInterval(
      () => void ballast.restore(),
      RESTORE_BALLAST_EVERY_MS,
    ).unref();
    const blobs = createFsBlobStore({ layout, fileSystem });
    const storageProbe = new StorageProbe(blobs);
    const scrubParts = {
      layout,
      fileSystem,
      clock,
      get index() {
        return { audit: kept.audit, rows: index };
      },
    };
    return {
      blobs,
      index: waitForRebuild(index, rebuild, isStored),
      lock: held,
      scrubParts,
      get audit() {
        return kept.audit;
      },
      get isRecovering() {
        return recovery.isRunning;
      },
      get absence() {
        return watched.absence;
      },
      get isOutOfRoom() {
        return ballast.isGivenUp;
      },
      recovered: () => recovery.ended(),
      probeStorage: () => storageProbe.probe(),
      restoreBallast: () => ballast.restore(),
      scrub: async (scrubOptions) => {
        const scrub = new Scrub({
          ...scrubParts,
          index: scrubParts.index,
          ...scrubOptions,
          isOnline: true,
        });
        if ((await kept.findDamage(false)).length > 0) {
          if (scrubOptions.isRepair) await kept.replace("found by a scrub");
          scrub.noteDamage(scrubOptions.isRepair);
          return scrub.report;
        }
        return scrub.run();
      },
      async close() {
        clearInterval(ballastTimer);
        try {
          await endAll([
            () => recovery.stop(),
            () => blobs.close(),
            () => journal.flush(),
            () => kept.close(),
          ]);
          const isWhole = !recovery.isUnfinished && journal.isWhole;
          if (isWhole && !kept.isTemporary && !watched.isAway) {
            await writeCleanMarker(layout, fileSystem, kept.runId);
          }
        } finally {
          watched.stop();
          held.release();
        }
      },
    };
  } catch (error) {
    watch?.stop();
    lock?.release();
    if (error instanceof StorageError) throw await rootFault(root, error);
    const denied = asDenied(error, layout);
    throw denied === undefined ? error : await rootFault(root, denied);
  }
}

/** What SQLite says of an index file that this process may not open or write. */
function asDenied(
  error: unknown,
  { indexFile }: DiskLayout,
): StorageError | undefined {
  if (!(error instanceof IndexError)) return undefined;
  const { cause } = error;
  const code = systemCode(cause);
  return /^SQLITE_(?:CANTOPEN|READONLY|PERM)/.test(code)
    ? new StorageError(`opening ${indexFile}`, code, { cause })
    : undefined;
}

/**
 * One after the other, all of them: what fails leaves nothing open behind it for a process that
 * takes the root over.
 *
 * @throws the first failure
 */
async function endAll(ends: readonly (() => Promise<void>)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const end of ends) {
    await end().catch((error: unknown) => failures.push(error));
  }
  if (failures.length > 0) throw failures[0];
}
