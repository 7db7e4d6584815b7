import { digestAlgorithm, digestOf } from "../../../oci/digest.ts";
import type { Clock } from "../../../telemetry/clock.ts";
import type { DiskLayout } from "../root/disk-layout.ts";
import type { FileStat, FileSystem } from "../root/file-system.ts";
import {
  readBlobFile,
  readManifestContent,
  recordOf,
} from "../blobs/found-blob.ts";
import type {
  BlobRecords,
  FillIntents,
  NotedIntent,
} from "../../blob-index.ts";
import type { TrackedBlobStore } from "../../tracked-blob-store.ts";

/** The parts of a storage root that a repair works on. */
export interface RootParts {
  readonly layout: DiskLayout;
  readonly fileSystem: FileSystem;
  readonly index: Pick<BlobRecords, "getBlob" | "recordBlob"> &
    Pick<FillIntents, "dropIntent" | "listIntents">;
  readonly clock: Clock;
}

/**
 * Completes fills that a crash interrupted between the rename of a blob and the write of its row.
 * There are as many as fills that were about to end, so it is done before the first request. A failure
 * is left to the next fill of the digest.
 *
 * While the mirror runs it also writes rows that a full disk rejected; `blobs` then excludes the blobs
 * that fills are writing. Only then are the intents of hosted repositories settled: at a start the
 * journal is replayed first, which may need the bytes.
 *
 * @returns the number of rows that were written
 */
export async function settleIntents(
  parts: RootParts & {
    readonly blobs?: Pick<TrackedBlobStore, "claim"> | undefined;
    /** Whether the index may still lack rows that the journal has. */
    readonly isReplaying?: boolean;
  },
): Promise<number> {
  let recorded = 0;
  for (const intent of await parts.index.listIntents()) {
    const claim = parts.blobs?.claim([intent.digest]);
    try {
      if (claim?.keys.length === 0) continue;
      if (intent.isHosted === true) {
        if (claim === undefined || parts.isReplaying === true) continue;
        await settleHosted(parts, intent);
        continue;
      }
      if (await settle(parts, intent)) recorded += 1;
    } catch {
      // A later fill of the digest settles it.
    } finally {
      claim?.release();
    }
  }
  return recorded;
}

/** A push that got no row was not acknowledged: its bytes are removed. */
async function settleHosted(
  { layout, fileSystem, index }: RootParts,
  { digest }: NotedIntent,
): Promise<void> {
  if ((await index.getBlob(digest)) === undefined) {
    await fileSystem.removeTree(layout.blobFile(digest));
  }
  await index.dropIntent(digest);
}

async function settle(
  { layout, fileSystem, index, clock }: RootParts,
  intent: NotedIntent,
): Promise<boolean> {
  const { key, digest, sizeBytes, mediaType } = intent;
  const path = layout.blobFile(digest);
  const stat: FileStat | undefined = await fileSystem
    .statPath(path)
    .catch(() => undefined);
  // The bytes were hashed and synced before the rename, so the name and the size are sufficient proof.
  if (stat?.isFile !== true || stat.sizeBytes !== sizeBytes) {
    await index.dropIntent(digest);
    return false;
  }
  if (mediaType === undefined) {
    await index.recordBlob(
      key,
      recordOf(digest, sizeBytes, clock.nowMs(), undefined),
    );
    return true;
  }
  const { bytes } = await readBlobFile(fileSystem, path, digest);
  const manifest = readManifestContent(bytes, mediaType);
  if (
    bytes === undefined ||
    manifest === undefined ||
    digestOf(bytes, digestAlgorithm(digest)) !== digest
  ) {
    await index.dropIntent(digest);
    return false;
  }
  await index.recordBlob(
    key,
    recordOf(digest, sizeBytes, clock.nowMs(), manifest),
  );
  return true;
}
