import type { Digest } from "../oci/digest.ts";

/**
 * The digest of a growing sequence of bytes, computed as they pass or from where they are stored.
 * A blob writer feeds its own hash with what it stored; a caller that passes bytes by the store
 * feeds the rest.
 */
export interface ContentHash {
  /** Adds bytes that follow all bytes fed before. The caller may reuse `bytes` immediately. */
  update(bytes: Uint8Array): void;
  /** Returns a second hash that starts with all bytes fed so far; each is closed separately. */
  fork(): ContentHash;
  /**
   * Returns the digest of all bytes fed so far; more may be fed afterwards.
   *
   * @throws StorageError if stored bytes can't be read back
   */
  digest(): Promise<Digest>;
  close(): void;
}
