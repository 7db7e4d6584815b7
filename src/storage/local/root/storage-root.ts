import { constants } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { DIGEST_ALGORITHMS } from "../../../oci/digest.ts";
import {
  parseUploadId,
  StorageError,
  type UploadId,
} from "../../blob-store.ts";
import {
  BOOT_ID_NAME,
  type DiskLayout,
  layoutFolders,
  parsePartialName,
} from "./disk-layout.ts";
import { type FileSystem, systemCode } from "./file-system.ts";
import { syncFolder } from "../blobs/blob-files.ts";

const { O_RDONLY, O_RDWR, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;
/** A full disk is not a fault of the set-up: stored content can be served, and space may be freed. */
const FULL = new Set(["ENOSPC", "EDQUOT"]);

/**
 * Creates the folders and tries once, in each of them, every operation that publishing a blob needs.
 *
 * @returns false if the disk is full
 * @throws StorageError that contains the path
 */
export async function prepareFolders(
  layout: DiskLayout,
  fileSystem: FileSystem,
): Promise<boolean> {
  try {
    for (const folder of layoutFolders(layout)) {
      await step(`making the folder ${folder}`, () =>
        fileSystem.makeFolder(folder),
      );
    }
    for (const algorithm of DIGEST_ALGORITHMS) {
      await tryFolder(layout, layout.blobFolder(algorithm), fileSystem);
    }
    return true;
  } catch (error) {
    if (error instanceof StorageError && FULL.has(error.code)) return false;
    throw error;
  }
}

async function tryFolder(
  layout: DiskLayout,
  folder: string,
  fileSystem: FileSystem,
): Promise<void> {
  const from = layout.temporaryFile("self-test", 0);
  const to = join(folder, ".self-test");
  try {
    const fd = await step(`creating ${from}`, () =>
      fileSystem.open(from, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW),
    );
    try {
      await step(`syncing ${from}`, () => fileSystem.fdatasync(fd));
    } finally {
      await fileSystem.close(fd).catch(() => undefined);
    }
    // Fails with EXDEV if the two folders are on different file systems.
    await step(`renaming ${from} to ${to}`, () => fileSystem.rename(from, to));
    await step(`syncing ${folder}`, () => syncFolder(fileSystem, folder));
    await step(`removing ${to}`, () => fileSystem.unlink(to));
  } catch (error) {
    await fileSystem.unlink(from).catch(() => undefined);
    throw error;
  }
}

/** Returns the id of the machine's current boot, as in `7c2a…-…`; undefined if the system has none. */
export async function readBootId(): Promise<string | undefined> {
  try {
    return (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  } catch {
    return undefined;
  }
}

/** Returns whether the root was last used during this boot; then its unsynced writes are intact too. */
export async function isSameBoot(
  layout: DiskLayout,
  fileSystem: FileSystem,
  bootId: string | undefined,
): Promise<boolean> {
  if (bootId === undefined) return false;
  try {
    const fd = await fileSystem.open(layout.bootIdFile, O_RDONLY | O_NOFOLLOW);
    try {
      const bytes = Buffer.alloc(128);
      const length = await fileSystem.read(fd, bytes, 0, bytes.length, 0);
      return bytes.toString("utf8", 0, length).trim() === bootId;
    } finally {
      await fileSystem.close(fd).catch(() => undefined);
    }
  } catch {
    return false;
  }
}

/**
 * Removes what no write can continue from the partial folder: leftovers of a crash, bytes of uploads
 * without a session, and after a power failure every partial, because its size says nothing about its
 * bytes. A session without bytes continues at offset 0. Then records the boot.
 *
 * @returns how many partials are kept
 * @throws StorageError if the folder can't be read
 */
export async function sweepPartials(
  layout: DiskLayout,
  fileSystem: FileSystem,
  {
    isSame,
    bootId,
    hasSession,
  }: {
    readonly isSame: boolean;
    readonly bootId: string | undefined;
    readonly hasSession: (id: UploadId) => Promise<boolean>;
  },
): Promise<number> {
  const names = await step(`listing ${layout.partialFolder}`, () =>
    fileSystem.list(layout.partialFolder),
  ).catch((error: unknown) => {
    // It could not be created on a full disk; the store creates it later.
    if (systemCode(error) === "ENOENT") return [];
    throw error;
  });
  let kept = 0;
  let isClean = true;
  for (const name of names) {
    if (name === BOOT_ID_NAME && isSame) continue;
    const path = join(layout.partialFolder, name);
    try {
      if (
        isSame &&
        (await canContinue(name, hasSession)) &&
        (await fileSystem.statPath(path)).isFile
      ) {
        kept += 1;
      } else {
        await fileSystem.removeTree(path);
      }
    } catch {
      isClean = false;
    }
  }
  // Only if nothing of another boot is left, because the next start would trust it.
  if (!isSame && isClean && bootId !== undefined) {
    await writeBootId(layout, fileSystem, bootId).catch(() => undefined);
  }
  return kept;
}

async function canContinue(
  name: string,
  hasSession: (id: UploadId) => Promise<boolean>,
): Promise<boolean> {
  const key = parsePartialName(name);
  if (key === undefined) return false;
  const id = parseUploadId(key);
  return id === undefined || hasSession(id);
}

/** Not synced: after a power failure a wrong or empty file rightly means distrust. */
async function writeBootId(
  layout: DiskLayout,
  fileSystem: FileSystem,
  bootId: string,
): Promise<void> {
  const fd = await fileSystem.open(
    layout.bootIdFile,
    O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW,
  );
  try {
    await fileSystem.writev(fd, [Buffer.from(`${bootId}\n`)], 0);
  } finally {
    await fileSystem.close(fd).catch(() => undefined);
  }
}

async function step<T>(operation: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new StorageError(operation, systemCode(error), { cause: error });
  }
}
