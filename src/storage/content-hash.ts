import type { Digest } from "../oci/digest.ts";

/**
 * The digest of a growing run of bytes, taken where the bytes pass or where they were stored.
 * A partial blob feeds its own with what it stored; whoever passes bytes by the store feeds the rest.
 */
export interface ContentHash {
  /** Feeds bytes that follow all that was fed before. The bytes may be reused at once. */
  update(bytes: Uint8Array): void;
  /** A second hash that starts from all that was fed so far; both are closed apart. */
  fork(): ContentHash;
  /**
   * The digest of all that was fed so far; more may be fed afterwards.
   *
   * @throws StorageError when stored bytes could not be read back
   */
  digest(): Promise<Digest>;
  close(): void;
}
