import { statfs } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import type { StorageSpace } from "../../storage.ts";

/** A network file system without its server answers after minutes or never. */
const PATIENCE_MS = 1_000;

/** Pending calls by path: each blocks a thread of the pool, so there is one per path. */
const pending = new Map<string, Promise<StorageSpace | undefined>>();

/** Returns the size and free space of the file system of a path; undefined without an answer within a second. */
export async function readDiskSpace(
  path: string,
): Promise<StorageSpace | undefined> {
  const running = pending.get(path) ?? read(path);
  pending.set(path, running);
  const end = new AbortController();
  try {
    return await Promise.race([
      running,
      delay(PATIENCE_MS, undefined, { signal: end.signal, ref: false }).catch(
        () => undefined,
      ),
    ]);
  } finally {
    end.abort();
  }
}

async function read(path: string): Promise<StorageSpace | undefined> {
  try {
    const { bsize, blocks, bavail } = await statfs(path);
    // Some network file systems report zeros.
    return blocks === 0
      ? undefined
      : { totalBytes: blocks * bsize, freeBytes: bavail * bsize };
  } catch {
    return undefined;
  } finally {
    pending.delete(path);
  }
}
