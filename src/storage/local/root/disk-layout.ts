import { createHash } from "node:crypto";
import { join } from "node:path";
import {
  type Digest,
  DIGEST_ALGORITHMS,
  digestAlgorithm,
  type DigestAlgorithm,
  digestHex,
  parseDigest,
} from "../../../oci/digest.ts";
import {
  parseUploadId,
  type UploadId,
  type WriteKey,
} from "../../blob-store.ts";

/*
 * root/                       0700, like every folder below
 *   blobs/                    laid out as the blob folder of an OCI image layout
 *     sha256/<64 hex>         published blobs, manifests among them: hashed, synced, then renamed to here
 *     sha512/<128 hex>
 *   partial/                  blobs being written; on the same file system, so that a rename publishes them
 *     <algorithm>-<hex>.<16 hex of the upstream's name>
 *                             bytes of a fill from one upstream, kept so that it can be resumed
 *     <algorithm>-<hex>       the same, from an unknown upstream
 *     upload-<id>             an upload's bytes, whose digest is known when it ends
 *     boot-id                 the machine's boot during which all these partials were written
 *     <anything else>         left by a crash, removed at the next start
 *   index.sqlite              the metadata index; -wal and -shm beside it are SQLite's
 *   index.sqlite.corrupt-…    a damaged index, moved aside
 *   roots.jsonl               the journal of tags, which can't be rebuilt from the blobs
 *   clean                     the id of the run that stopped cleanly, leaving a complete index
 *   ballast                   space that is released on a full disk, so that the index can delete rows
 *   lock                      locked by the process that holds the root (SQLite; nothing else may open it)
 *   lock-owner                that process's id, for the message to a second process
 *
 * There is no `oci-layout` file: a layout needs an `index.json` too, and with an incomplete one the
 * garbage collection of a layout tool would remove blobs.
 */

/** Paths below a storage root. */
export interface DiskLayout {
  readonly root: string;
  readonly partialFolder: string;
  readonly bootIdFile: string;
  readonly indexFile: string;
  readonly rootsFile: string;
  readonly cleanFile: string;
  readonly ballastFile: string;
  readonly lockFile: string;
  readonly lockOwnerFile: string;
  blobFolder(algorithm: DigestAlgorithm): string;
  blobFile(digest: Digest): string;
  /** @param upstream the source of the bytes; absent if unknown */
  partialFile(digest: Digest, upstream?: string): string;
  uploadFile(id: UploadId): string;
  /** Returns a path in the partial folder that no partial uses; `purpose` and `number` make it unique. */
  temporaryFile(purpose: string, number: number): string;
}

export function diskLayout(root: string): DiskLayout {
  const partialFolder = join(root, "partial");
  return {
    root,
    partialFolder,
    bootIdFile: join(partialFolder, BOOT_ID_NAME),
    indexFile: join(root, "index.sqlite"),
    rootsFile: join(root, "roots.jsonl"),
    cleanFile: join(root, "clean"),
    ballastFile: join(root, "ballast"),
    lockFile: join(root, "lock"),
    lockOwnerFile: join(root, "lock-owner"),
    blobFolder: (algorithm) => join(root, "blobs", algorithm),
    blobFile: (digest) =>
      join(root, "blobs", digestAlgorithm(digest), digestHex(digest)),
    partialFile: (digest, upstream) =>
      join(
        partialFolder,
        `${digestAlgorithm(digest)}-${digestHex(digest)}${suffixOf(upstream)}`,
      ),
    uploadFile: (id) => join(partialFolder, `${UPLOAD_PREFIX}${id}`),
    temporaryFile: (purpose, number) =>
      join(partialFolder, `temporary-${purpose}-${number}`),
  };
}

/** Returns every folder of the tree, parents first. */
export function layoutFolders(layout: DiskLayout): readonly string[] {
  return [
    layout.root,
    ...DIGEST_ALGORITHMS.map((algorithm) => layout.blobFolder(algorithm)),
    layout.partialFolder,
  ];
}

export const BOOT_ID_NAME = "boot-id";

/**
 * Returns the key of the write that a file in the partial folder belongs to, as of
 * `sha256-<hex>.<16 hex>`, `sha256-<hex>` or `upload-<id>`.
 */
export function parsePartialName(name: string): WriteKey | undefined {
  return name.startsWith(UPLOAD_PREFIX)
    ? parseUploadId(name.slice(UPLOAD_PREFIX.length))
    : parseDigest(name.replace(UPSTREAM_SUFFIX, "").replace("-", ":"));
}

const UPLOAD_PREFIX = "upload-";

const UPSTREAM_SUFFIX = /\.[0-9a-f]{16}$/;

/** Hashes the upstream's name, which may contain characters that file names may not. */
function suffixOf(upstream: string | undefined): string {
  return upstream === undefined
    ? ""
    : `.${createHash("sha256").update(upstream).digest("hex").slice(0, 16)}`;
}
