import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";

/** More than the new memory that a contestant's turn needs: a file of 256 MiB, and buffers. */
const BYTES = 1024 ** 3;
const PART = Buffer.alloc(4 * 1024 ** 2);

/**
 * Makes the allocation of memory equally cheap for every contestant.
 *
 * A virtual machine may return free memory to its host (free page reporting of virtio-balloon, some
 * seconds after it was freed); the first access to such a page then waits for the host: a new file of
 * 256 MiB took 0.8 s instead of 0.06 s. Chance decides which contestant waits, and thus the figure.
 * A file that is written and removed leaves pages that the host still provides, in the large blocks
 * from which the next file's pages are allocated. Touching a process's own memory has no effect,
 * because its small pages are not merged into large blocks.
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
