import { statfs } from "node:fs/promises";

/** Of the file system that holds a path; undefined where the system does not tell. */
export async function readDiskSpace(
  path: string,
): Promise<{ totalBytes: number; freeBytes: number } | undefined> {
  try {
    const { bsize, blocks, bavail } = await statfs(path);
    // Some network file systems tell nothing by telling zeros.
    return blocks === 0
      ? undefined
      : { totalBytes: blocks * bsize, freeBytes: bavail * bsize };
  } catch {
    return undefined;
  }
}
