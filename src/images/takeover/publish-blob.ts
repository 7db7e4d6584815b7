import type { BlobRecords, BlobRow } from "../../storage/blob-index.ts";
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

/** Publishes the file of a blob. @throws StorageError; the signal's reason */
export async function publishBlob(
  store: ForeignFileStore,
  { digest, path, sizeBytes }: FolderBlob,
  { signal, onBytes }: TakeoverWork,
): Promise<Taken> {
  const result = await store.publishFile(digest, path, signal, onBytes);
  switch (result.kind) {
    case "linked":
    case "copied":
      // The size is recorded: a blob of another size is absent for its readers.
      return result.sizeBytes === sizeBytes
        ? { kind: result.kind }
        : failed("damaged", "its size changed while it was read");
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

/** Its digest does not cover all of its bytes. */
export const SCHEMA1_FAILURE: Failed = {
  kind: "failed",
  problem: "unknown",
  message: "got a manifest of schema 1; expected Docker schema 2 or OCI",
};

function failed(problem: ProblemKind, message: string): Taken {
  return { kind: "failed", problem, message };
}
