import { statfsSync } from "node:fs";
import { isBuiltin } from "node:module";
import { release } from "node:os";

/** ext4, XFS and Btrfs read without a wait where they are asked to; tmpfs and overlays don't. */
const FILE_SYSTEMS = new Set([0xef53, 0x58465342, 0x9123683e]);

/** Whether files of that folder can be sent past all buffers here: see src/storage/local/blobs/page-cache.ts. */
export function offersPageCache(folder: string): boolean {
  const [major = 0, minor = 0] = release().split(".").map(Number);
  return (
    process.platform === "linux" &&
    (major > 6 || (major === 6 && minor >= 5)) &&
    isBuiltin("node:ffi") &&
    FILE_SYSTEMS.has(statfsSync(folder).type)
  );
}
