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
 *   partial/                  what is on its way in; on the same file system, so that a rename publishes it
 *     <algorithm>-<hex>.<16 hex of the upstream's name>
 *                             a fill's bytes from one upstream, kept for its resumption
 *     <algorithm>-<hex>       the same, from an unknown upstream
 *     upload-<id>             an upload's bytes, whose digest is known when it ends
 *     boot-id                 the boot of the machine that all partials here were written under
 *     <anything else>         left by a crash, removed at start
 *   index.sqlite              what is known of the blobs; -wal and -shm beside it are SQLite's
 *   index.sqlite.corrupt-…    an index that could not be read, moved aside
 *   roots.jsonl               what the tags point to: what an index can't be rebuilt from the blobs without
 *   clean                     the last process ended in order, and the index is as it left it
 *   ballast                   room for the index on a disk that is full: given up so that rows can go
 *   lock                      held by the process that owns the root (SQLite; never opened by anything else)
 *   lock-owner                that process's id, to be named to whoever is refused
 *
 * There is no `oci-layout` file: a layout needs an `index.json` too, and one that does not name
 * every image invites a layout tool's garbage collection to remove the blobs.
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
  /** @param upstream where the bytes come from; absent: not known */
  partialFile(digest: Digest, upstream?: string): string;
  uploadFile(id: UploadId): string;
  /** A name in the partial folder that no partial has; `purpose` and `number` make it unique. */
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

/** Every folder of the tree, parents first. */
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

/** A hash: a name may hold what a file's name may not. */
function suffixOf(upstream: string | undefined): string {
  return upstream === undefined
    ? ""
    : `.${createHash("sha256").update(upstream).digest("hex").slice(0, 16)}`;
}
