import type { Digest } from "../../oci/digest.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import { StorageError } from "../blob-store.ts";
import { IndexError, type MetadataIndex } from "../metadata-index.ts";
import type { Storage, StorageAbsence } from "../storage.ts";
import {
  type TrackedBlobStore,
  trackBlobStore,
} from "../tracked-blob-store.ts";
import { createFsBlobStore } from "./blobs/fs-blob-store.ts";
import { KeptIndex } from "./index/kept-index.ts";
import { LocalUpkeep, type LocalUpkeepParts } from "./local-upkeep.ts";
import { Ballast } from "./root/ballast.ts";
import { takeCleanMarker, writeCleanMarker } from "./root/clean-marker.ts";
import { type DiskLayout, diskLayout } from "./root/disk-layout.ts";
import {
  type FileSystem,
  nodeFileSystem,
  systemCode,
} from "./root/file-system.ts";
import { type HeldRoot, holdRoot } from "./root/held-root.ts";
import { makeRoot, rootFault } from "./root/make-root.ts";
import { StorageProbe } from "./root/storage-probe.ts";
import {
  isSameBoot,
  prepareFolders,
  readBootId,
  sweepPartials,
} from "./root/storage-root.ts";
import { gateHosted } from "./durable/gated-index.ts";
import { HostedGate } from "./durable/hosted-gate.ts";
import { RebuildWait, waitForRebuild } from "./upkeep/rebuild-wait.ts";
import { Recovery } from "./upkeep/recovery.ts";
import { RootsJournal } from "./upkeep/roots-journal.ts";
import { settleIntents } from "./upkeep/settle-intents.ts";

const RESTORE_BALLAST_EVERY_MS = 60_000;

export interface LocalStorageOptions {
  /** Absolute. Created if absent; its parent must exist. */
  readonly root: string;
  readonly clock: Clock;
  readonly log: Pick<Logger, "info" | "warn" | "error">;
  readonly fileSystem?: FileSystem;
  /** Replaces the id of the machine's boot. */
  readonly bootId?: string;
  /** The opened root is no longer at its path, or is there again. */
  readonly onAbsence?: (absence: StorageAbsence | undefined) => void;
  /** Called after each published blob, before its index row is written. */
  readonly onPublished?: () => void;
}

/**
 * Opens a storage root: blobs as files, the index in SQLite. What a crash interrupted is completed
 * first. After anything but a clean stop, index and blobs are then compared while requests are
 * served, however many there are.
 *
 * @throws RootInUseError; StorageRootError if an operator must repair the root; StorageError if the
 *   disk is at fault; IndexError
 */
export async function openLocalStorage(
  options: LocalStorageOptions,
): Promise<LocalStorage> {
  const { root, log, onAbsence } = options;
  const layout = diskLayout(root);
  await makeRoot(root);
  let held: HeldRoot | undefined;
  let opened: OpenedRoot | undefined;
  try {
    held = holdRoot(layout, {
      fileSystem: options.fileSystem ?? nodeFileSystem,
      log,
      onChange: (absence) => {
        onAbsence?.(absence);
        if (absence === undefined) void opened?.journal.flush();
      },
    });
    opened = await openRoot(held, options);
    return new LocalStorage(opened, options);
  } catch (error) {
    held?.release();
    if (error instanceof StorageError) throw await rootFault(root, error);
    const denied = asDenied(error, layout);
    throw denied === undefined ? error : await rootFault(root, denied);
  }
}

interface OpenedRoot extends IndexParts {
  readonly held: HeldRoot;
}

/** Opens the index of a root, completes what a crash interrupted, and starts the recovery. */
async function openRoot(
  held: HeldRoot,
  options: LocalStorageOptions,
): Promise<OpenedRoot> {
  const { layout, fileSystem } = held;
  const { root, clock, log } = options;
  if (!(await prepareFolders(layout, fileSystem))) {
    log.warn(
      { root },
      "the disk of the storage root is full: pulls pass through",
    );
  }
  const bootId = options.bootId ?? (await readBootId());
  const isSame = await isSameBoot(layout, fileSystem, bootId);
  const cleanRunId = await takeCleanMarker(layout, fileSystem);
  const parts = openIndexParts(held, options);
  const { kept, recovery, ballast } = parts;
  try {
    const settledFills = await settleIntents({
      layout,
      fileSystem,
      index: kept.index,
      clock,
    });
    const keptPartials = await sweepPartials(layout, fileSystem, {
      isSame,
      bootId,
      hasSession: async (id) => (await kept.index.getUpload(id)) !== undefined,
    });
    log.info({ root, keptPartials, settledFills }, "opened the storage root");
  } catch (error) {
    await kept.close();
    throw error;
  }
  if (cleanRunId !== undefined && cleanRunId === kept.lastRunId) {
    recovery.compact();
  } else {
    const isLast = !kept.isNew && cleanRunId === undefined;
    recovery.start({ isSound: kept.isNew, isLast });
  }
  void ballast.restore();
  return { ...parts, held };
}

interface IndexParts {
  readonly kept: KeptIndex;
  readonly journal: RootsJournal;
  readonly ballast: Ballast;
  readonly rebuild: RebuildWait;
  readonly gate: HostedGate;
  readonly recovery: Recovery;
}

function openIndexParts(
  { layout, fileSystem, watch }: HeldRoot,
  { clock, log }: LocalStorageOptions,
): IndexParts {
  const journal = new RootsJournal({
    layout,
    fileSystem,
    clock,
    onObsolete: () => recovery.shrinkJournal(),
  });
  const ballast = new Ballast(layout, fileSystem, () => watch.isHereNow());
  const kept = new KeptIndex({
    layout,
    fileSystem,
    clock,
    log,
    journal,
    ballast,
    watch,
    onReplaced: () => recovery.start({ isSound: true, isLast: false }),
  });
  const rebuild = new RebuildWait();
  const gate = new HostedGate();
  const recovery = new Recovery({
    layout,
    fileSystem,
    clock,
    log,
    kept,
    journal,
    rebuild,
    gate,
  });
  return { kept, journal, ballast, rebuild, gate, recovery };
}

/** An open storage root of this machine. */
export class LocalStorage implements Storage {
  readonly blobs: TrackedBlobStore;
  readonly index: MetadataIndex;
  readonly upkeep: LocalUpkeep;
  readonly #opened: OpenedRoot;
  readonly #probe: StorageProbe;
  readonly #ballastTimer: NodeJS.Timeout;

  constructor(
    opened: OpenedRoot,
    options: Pick<LocalUpkeepParts, "clock" | "log"> &
      Pick<LocalStorageOptions, "onPublished">,
  ) {
    const { held, kept, ballast, rebuild, gate } = opened;
    const { layout, fileSystem } = held;
    const { clock, log, onPublished } = options;
    this.#opened = opened;
    const files = createFsBlobStore({ layout, fileSystem });
    this.#probe = new StorageProbe(files);
    this.blobs = trackBlobStore(
      files,
      onPublished,
      async (digest) => (await kept.index.getBlob(digest)) !== undefined,
    );
    const isStored = (digest: Digest): Promise<boolean> =>
      fileSystem.statPath(layout.blobFile(digest)).then(
        ({ isFile }) => isFile,
        () => false,
      );
    this.index = gateHosted(
      waitForRebuild(kept.index, rebuild, isStored),
      gate,
    );
    this.upkeep = new LocalUpkeep({ ...opened, blobs: this.blobs, clock, log });
    this.#ballastTimer = setInterval(
      () => void ballast.restore(),
      RESTORE_BALLAST_EVERY_MS,
    ).unref();
  }

  probe(): Promise<void> {
    return this.#probe.probe();
  }

  /** Marks the root as cleanly closed if index and journal are complete, and releases it last. */
  async close(): Promise<void> {
    const { held, kept, journal, recovery } = this.#opened;
    clearInterval(this.#ballastTimer);
    try {
      await endAll([
        () => recovery.stop(),
        () => this.blobs.close(),
        () => journal.flush(),
        () => kept.close(),
      ]);
      const isComplete = !recovery.isUnfinished && journal.isWhole;
      if (isComplete && !kept.isTemporary && !held.watch.isAway) {
        await writeCleanMarker(held.layout, held.fileSystem, kept.runId);
      }
    } finally {
      held.release();
    }
  }
}

/** Recognizes SQLite's errors for an index file that this process may not open or write. */
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
 * Runs all of them in sequence, also after a failure, so that nothing stays open when the next
 * process opens the root.
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
