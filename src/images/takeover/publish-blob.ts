import type { BlobRecords, BlobRow } from "../../storage/blob-index.ts";
import type { PublishedFile } from "../../storage/blob-store.ts";
import type { TrackedBlobStore } from "../../storage/tracked-blob-store.ts";
import type {
  Failed,
  FolderBlob,
  ProblemKind,
  Taken,
  TakeoverWork,
} from "./takeover.ts";

/** A store that takes files of other programs. */
export type ForeignFileStore = TrackedBlobStore &
  Required<Pick<TrackedBlobStore, "publishFile">>;

/** @returns undefined if the store is not on a file system */
export function asForeignFileStore(
  store: TrackedBlobStore,
): ForeignFileStore | undefined {
  return store.publishFile === undefined
    ? undefined
    : (store as ForeignFileStore);
}

/** Returns the row of a blob that is stored with its bytes. */
export async function findStored(
  {
    index,
    store,
  }: {
    readonly index: Pick<BlobRecords, "getBlob">;
    readonly store: Pick<TrackedBlobStore, "open">;
  },
  { digest, sizeBytes }: FolderBlob,
): Promise<BlobRow | undefined> {
  const row = await index.getBlob(digest);
  if (row?.sizeBytes !== sizeBytes) return undefined;
  const reader = await store.open(digest, sizeBytes);
  await reader?.close();
  return reader === undefined ? undefined : row;
}

/** @throws StorageError; the signal's reason */
export function publishBlob(
  store: ForeignFileStore,
  { digest, path }: FolderBlob,
  { signal, onBytes }: TakeoverWork,
): Promise<PublishedFile> {
  return store.publishFile(digest, path, signal, onBytes);
}

/** Its digest does not cover all of its bytes. */
export const SCHEMA1_FAILURE: Failed = {
  kind: "failed",
  problem: "unknown",
  message: "got a manifest of schema 1; expected Docker schema 2 or OCI",
};

export function takenOf(result: PublishedFile): Taken {
  switch (result.kind) {
    case "linked":
    case "copied":
      return { kind: result.kind };
    case "absent":
      return failed("missing", "its bytes are not in blobs/");
    case "wrong":
      return failed("damaged", "its bytes have another digest");
    case "unreadable":
      return failed("damaged", `its bytes cannot be read (${result.code})`);
    default:
      return result satisfies never;
  }
}

function failed(problem: ProblemKind, message: string): Taken {
  return { kind: "failed", problem, message };
}
