import { constants } from "node:fs";
import type { DiskLayout } from "./disk-layout.ts";
import type { FileSystem } from "./file-system.ts";
import { syncFolder } from "../blobs/blob-files.ts";

const { O_RDONLY, O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;

/**
 * Removes the marker of a clean stop, so that a crash from here on is noticed.
 *
 * @returns the id of the run that stopped cleanly; undefined if the last run did not
 */
export async function takeCleanMarker(
  layout: DiskLayout,
  fileSystem: FileSystem,
): Promise<string | undefined> {
  try {
    const fd = await fileSystem.open(layout.cleanFile, O_RDONLY | O_NOFOLLOW);
    let runId: string;
    try {
      const bytes = Buffer.alloc(128);
      const length = await fileSystem.read(fd, bytes, 0, bytes.length, 0);
      runId = bytes.toString("latin1", 0, length).trim();
    } finally {
      await fileSystem.close(fd).catch(() => undefined);
    }
    await fileSystem.unlink(layout.cleanFile);
    // Without the sync it could reappear after a power failure, and be trusted.
    await syncFolder(fileSystem, layout.root);
    return runId === "" ? undefined : runId;
  } catch {
    // Absent. A marker that can't be removed is not trusted either.
    return undefined;
  }
}

/** Writes the marker as the last step of a clean stop. Never rejects: without it the next start verifies more. */
export async function writeCleanMarker(
  layout: DiskLayout,
  fileSystem: FileSystem,
  runId: string,
): Promise<void> {
  try {
    const fd = await fileSystem.open(
      layout.cleanFile,
      O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW,
    );
    try {
      await fileSystem.writev(fd, [Buffer.from(`${runId}\n`)], 0);
      await fileSystem.fdatasync(fd);
    } finally {
      await fileSystem.close(fd).catch(() => undefined);
    }
    await syncFolder(fileSystem, layout.root);
  } catch {
    await fileSystem.unlink(layout.cleanFile).catch(() => undefined);
  }
}
