import { cpSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** What is in memory outlives a process as what is on a disk does, and costs no wait for one. */
const MEMORY = "/dev/shm";

/** A folder that {@link dropRoot} removes, empty or as another one is. */
export function memoryRoot(template?: string): string {
  const root = mkdtempSync(
    join(existsSync(MEMORY) ? MEMORY : tmpdir(), "entrepot-faults-"),
  );
  if (template !== undefined) cpSync(template, root, { recursive: true });
  return root;
}

export function dropRoot(root: string): void {
  rmSync(root, { recursive: true, force: true });
}
