import { closeSync, openSync } from "node:fs";

/**
 * Makes an empty file of mode 0600 for SQLite, which itself would make one that all may read.
 * A file that is there is not even opened: closing it would let go of the locks that SQLite holds on it.
 */
export function createPrivateFile(path: string): void {
  try {
    closeSync(openSync(path, "ax", 0o600));
  } catch {
    // It is there already, or SQLite tells what is wrong.
  }
}
