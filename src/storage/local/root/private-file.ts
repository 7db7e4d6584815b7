import { closeSync, openSync } from "node:fs";
import { diskFault } from "./make-root.ts";

/**
 * Creates an empty file of mode 0600 for SQLite, which would create a world-readable one.
 * An existing file is not opened: closing it would release the locks that SQLite holds on it.
 *
 * @throws the system's error if the disk is at fault, which SQLite would not report
 */
export function createPrivateFile(path: string): void {
  try {
    closeSync(openSync(path, "ax", 0o600));
  } catch (error) {
    // It exists already, or SQLite will report the fault.
    if (diskFault(error) !== undefined) throw error;
  }
}
