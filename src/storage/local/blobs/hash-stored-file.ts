import type { Digest, DigestAlgorithm } from "../../../oci/digest.ts";
import { InlineHash } from "../../inline-hash.ts";
import { systemCode } from "../root/file-system.ts";
import type { BackgroundHashes } from "./background-hash.ts";
import type { SharedFile } from "./shared-file.ts";
import { BACKGROUND_HASH_FROM_BYTES } from "./stored-hash.ts";

/** The disk has the file and does not return its bytes; any other failure says nothing about them. */
const UNREADABLE = new Set(["EIO", "EUCLEAN", "EBADMSG", "EOF"]);

/** Returns whether an error of a read means that the disk does not return the bytes. */
export function isUnreadable(error: unknown): boolean {
  return UNREADABLE.has(systemCode(error));
}

/** The signal is checked after each step, so that a stop does not wait for a large file. */
const STEP_BYTES = 64 * 1024 * 1024;

/**
 * Hashes a file of `sizeBytes`; a large one on the thread for hashes.
 *
 * @throws StorageError, the signal's reason
 */
export async function hashStoredFile(
  file: SharedFile,
  options: {
    readonly algorithm: DigestAlgorithm;
    readonly sizeBytes: number;
    readonly hashes: BackgroundHashes;
    readonly signal: AbortSignal;
    /** Called after each step with its bytes. */
    readonly onBytes?: (bytes: number) => void;
  },
): Promise<Digest> {
  const { algorithm, sizeBytes, hashes, signal, onBytes } = options;
  signal.throwIfAborted();
  if (sizeBytes < BACKGROUND_HASH_FROM_BYTES) {
    const hash = new InlineHash(algorithm);
    const bytes = Buffer.allocUnsafeSlow(sizeBytes);
    if (sizeBytes > 0) await file.readFully(bytes, sizeBytes, 0);
    hash.update(bytes);
    onBytes?.(sizeBytes);
    return hash.digest();
  }
  const hash = hashes.open(algorithm, file);
  try {
    for (let end = 0; ;) {
      const start = end;
      end = Math.min(sizeBytes, end + STEP_BYTES);
      hash.addStored([], end);
      const digest = await hash.digest();
      onBytes?.(end - start);
      if (end === sizeBytes) return digest;
      signal.throwIfAborted();
    }
  } finally {
    hash.close();
  }
}
