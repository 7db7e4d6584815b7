import { existsSync } from "node:fs";
import type { Config } from "../config/config.ts";
import { openLocalStorageOrWait } from "../storage/local/late-storage.ts";
import {
  type LocalStorageOptions,
  openLocalStorage,
} from "../storage/local/open-local-storage.ts";
import { diskLayout } from "../storage/local/root/disk-layout.ts";
import { readDiskSpace } from "../storage/local/root/disk-space.ts";
import { scrubRoot } from "../storage/local/upkeep/scrub-root.ts";
import type { ScrubReport } from "../storage/scrub-report.ts";
import type { Storage, StorageSpace } from "../storage/storage.ts";
import type { Clock } from "../telemetry/clock.ts";

/*
 * The only place that chooses an implementation of the storage, for the server and for the commands.
 */

type StorageConfig = Config["storage"];
type OpenOptions = Omit<LocalStorageOptions, "root" | "fileSystem" | "bootId">;

/**
 * Opens the storage for a server. If the disk is at fault, the storage is absent at first and is
 * opened in the background.
 *
 * @throws RootInUseError; StorageRootError if an operator must repair the root; IndexError
 */
export function openStorage(
  config: StorageConfig,
  options: OpenOptions,
): Promise<Storage> {
  return openLocalStorageOrWait({ ...options, root: config.root });
}

/**
 * Opens the storage of a stopped mirror.
 *
 * @returns undefined if nothing was ever stored there
 * @throws like {@link openStorage}; StorageError if the disk is at fault
 */
export async function openStoppedStorage(
  config: StorageConfig,
  options: OpenOptions,
): Promise<Storage | undefined> {
  return existsSync(diskLayout(config.root).indexFile)
    ? openLocalStorage({ ...options, root: config.root })
    : undefined;
}

/**
 * Opens the storage of a stopped mirror for content that is added to it, and creates it if nothing was
 * ever stored there.
 *
 * @throws like {@link openStoppedStorage}
 */
export function createStoppedStorage(
  config: StorageConfig,
  options: OpenOptions,
): Promise<Storage> {
  return openLocalStorage({ ...options, root: config.root });
}

/**
 * Scrubs the storage of a stopped mirror. Without repair nothing in it is changed.
 *
 * @throws RootInUseError, StorageError, IndexError
 */
export function scrubStoppedStorage(
  config: StorageConfig,
  options: { readonly clock: Clock; readonly isRepair: boolean },
): Promise<ScrubReport> {
  return scrubRoot({ ...options, root: config.root });
}

/** Returns undefined if the system does not answer. */
export function readStorageSpace(
  config: StorageConfig,
): Promise<StorageSpace | undefined> {
  return readDiskSpace(config.root);
}
