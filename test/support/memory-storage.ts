import type { Digest } from "../../src/oci/digest.ts";
import type { BlobRow } from "../../src/storage/blob-index.ts";
import type { MetadataIndex } from "../../src/storage/metadata-index.ts";
import type {
  DroppedBlob,
  ScrubFinding,
} from "../../src/storage/scrub-report.ts";
import type {
  ScrubRequest,
  Storage,
  StorageUpkeep,
} from "../../src/storage/storage.ts";
import {
  type TrackedBlobStore,
  trackBlobStore,
} from "../../src/storage/tracked-blob-store.ts";
import { createMemoryBlobStore } from "./memory-blob-store.ts";
import { MemoryMetadataIndex } from "./memory-index/memory-metadata-index.ts";

/** A storage without a medium: the smallest example of a second implementation. */
export function createMemoryStorage(
  onPublished: () => void = () => undefined,
): Storage {
  const blobs = trackBlobStore(createMemoryBlobStore(), onPublished);
  const index = new MemoryMetadataIndex();
  return {
    blobs,
    index,
    upkeep: createMemoryUpkeep(blobs, index),
    probe: () => Promise.resolve(),
    close: async () => {
      await blobs.close();
      await index.close();
    },
  };
}

function createMemoryUpkeep(
  blobs: TrackedBlobStore,
  index: MetadataIndex,
): StorageUpkeep {
  const drop = async (
    code: ScrubFinding["code"],
    digest: Digest,
    isRepair: boolean,
    onDropped: ((dropped: DroppedBlob) => void) | undefined,
  ): Promise<ScrubFinding> => {
    const row: BlobRow | undefined = await index.getBlob(digest);
    if (isRepair) {
      await blobs.remove(digest);
      await index.forgetBlob(digest);
      // The index has no way to find the repositories of a blob, so the healer fetches nothing.
      if (row !== undefined) {
        const isManifest = row.mediaType !== undefined;
        onDropped?.({ digest, isManifest, repositories: [], tags: [] });
      }
    }
    return { code, path: digest, digest, repaired: isRepair };
  };
  return {
    absence: undefined,
    isRecovering: false,
    isOutOfRoom: false,
    recovered: () => Promise.resolve(),
    readSpace: () => Promise.resolve(undefined),
    clearLeftovers: () => Promise.resolve(),
    async scrub({ isRepair, signal, onDropped }: ScrubRequest) {
      const findings: ScrubFinding[] = [];
      const end = signal ?? new AbortController().signal;
      let count = 0;
      let bytes = 0;
      await blobs.list(async (page) => {
        for (const { digest, sizeBytes } of page) {
          const verdict = await blobs.verify(digest, sizeBytes, end);
          count += 1;
          bytes += sizeBytes;
          if (verdict === "right") continue;
          findings.push(
            await drop("blob-corrupt", digest, isRepair, onDropped),
          );
        }
      });
      return { blobs: count, bytes, findings };
    },
    dropBlob: async (digest, verdict, onDropped) => [
      await drop(
        verdict === "wrong" ? "blob-corrupt" : "blob-unreadable",
        digest,
        true,
        onDropped,
      ),
    ],
    startBackgroundScrub: () => ({ stop: () => Promise.resolve() }),
  };
}
