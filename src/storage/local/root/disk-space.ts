import { statfs } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import type { StorageSpace } from "../../storage.ts";

/** A network file system whose server is gone answers after minutes, if at all. */
const PATIENCE_MS = 1_000;

/** Questions that are not answered yet, by path: each holds a thread of the pool, so there is one. */
const asked = new Map<string, Promise<StorageSpace | undefined>>();

/** Of the file system that holds a path; undefined if the system does not say so within a second. */
export async function readDiskSpace(
  path: string,
): Promise<StorageSpace | undefined> {
  const running = asked.get(path) ?? ask(path);
  asked.set(path, running);
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

async function ask(path: string): Promise<StorageSpace | undefined> {
  try {
    const { bsize, blocks, bavail } = await statfs(path);
    // Some network file systems answer with zeros.
    return blocks === 0
      ? undefined
      : { totalBytes: blocks * bsize, freeBytes: bavail * bsize };
  } catch {
    return undefined;
  } finally {
    asked.delete(path);
  }
}
