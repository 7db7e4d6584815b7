import { constants } from "node:fs";
import type { DiskLayout } from "./disk-layout.ts";
import type { FileSystem } from "./file-system.ts";
import { syncFolder } from "../blobs/blob-files.ts";

const { O_RDONLY, O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;

/**
 * Takes the mark of a clean stop away: from here on a crash shows.
 *
 * @returns the run that the last process ended in order; undefined where it did not
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
    // Else it could be back after a power failure, and be believed.
    await syncFolder(fileSystem, layout.root);
    return runId === "" ? undefined : runId;
  } catch {
    // It is not there; and what can't be taken away is not believed.
    return undefined;
  }
}

/** The last write of a process that ends in order. Never rejects: without it the next start looks closer. */
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
