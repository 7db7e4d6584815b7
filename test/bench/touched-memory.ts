import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";

/** More than a contestant's turn takes of new memory: a file of 256 MiB, and buffers. */
const BYTES = 1024 ** 3;
const PART = Buffer.alloc(4 * 1024 ** 2);

/**
 * Makes the memory that a turn will take as cheap to have for one contestant as for the next.
 *
 * A virtual machine may give free memory back to its host (free page reporting of virtio-balloon,
 * some seconds after it was freed); the first touch of such a page then waits for the host: a new
 * file of 256 MiB took 0.8 s instead of 0.06 s. Which contestant waits is chance, and decides the
 * figure. A file that is written and removed leaves pages that the host still
 * has, in the large blocks that the next file's pages are taken from: touching a process's own
 * memory does not help, its small pages are not put together again.
 *
 * If the machine owns its memory, this changes nothing and takes a quarter of a second.
 *
 * @param folder on the file system that is measured
 */
export function touchMemory(folder: string): void {
  const path = join(folder, "touched-memory");
  const fd = openSync(path, "w");
  try {
    for (let at = 0; at < BYTES; at += PART.length) writeSync(fd, PART);
  } finally {
    closeSync(fd);
    rmSync(path);
  }
}
