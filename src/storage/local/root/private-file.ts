import { closeSync, openSync } from "node:fs";
import { diskFault } from "./make-root.ts";

/**
 * Makes an empty file of mode 0600 for SQLite, which itself would make one that all may read.
 * A file that is there is not even opened: closing it would let go of the locks that SQLite holds on it.
 *
 * @throws the system's error if the disk is at fault: SQLite would not say so
 */
export function createPrivateFile(path: string): void {
  try {
    closeSync(openSync(path, "ax", 0o600));
  } catch (error) {
    // Else it is there already, or SQLite reports what is wrong.
    if (diskFault(error) !== undefined) throw error;
  }
}
