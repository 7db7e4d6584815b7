import type { BlobStore } from "../../storage/blob-store.ts";
import type { BlobRecords, FillIntents } from "../../storage/blob-index.ts";
import type { Digest } from "../../oci/digest.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { RepositoryKey } from "../../oci/reference.ts";

/**
 * Publishes verified bytes and writes their row and link, in an order in which a crash leaves no file
 * without a row or an intent. A blob that a fill of another upstream stored meanwhile is replaced by
 * equal bytes.
 *
 * @throws StorageError, or the error of the index; then the blob is not in the cache
 */
export async function publishVerified(
  parts: {
    readonly store: Pick<BlobStore, "remove">;
    readonly index: Pick<BlobRecords, "getBlob" | "recordBlob"> &
      Pick<FillIntents, "beginFill" | "dropIntent">;
    readonly clock: Clock;
  },
  key: RepositoryKey,
  blob: { readonly digest: Digest; readonly sizeBytes: number },
  publish: () => Promise<void>,
): Promise<void> {
  const { store, index, clock } = parts;
  const { digest } = blob;
  const isNoted = await index.beginFill(key, blob).then(
    () => true,
    () => false,
  );
  try {
    await publish();
  } catch (error) {
    await index.dropIntent(digest).catch(() => {});
    throw error;
  }
  try {
    await index.recordBlob(key, { ...blob, storedAtMs: clock.nowMs() });
  } catch (error) {
    // No row names the file. If the intent is noted, the row is written once the index works again.
    // While the index can't answer, a hosted repository may need the bytes.
    if (!isNoted && (await isInIndex(index, digest)) === false) {
      await store.remove(digest).catch(() => {});
    }
    throw error;
  }
}

/** Returns whether the index has a row for a blob; undefined if the index fails. */
export function isInIndex(
  index: Pick<BlobRecords, "getBlob">,
  digest: Digest,
): Promise<boolean | undefined> {
  return index.getBlob(digest).then(
    (row) => row !== undefined,
    () => undefined,
  );
}
