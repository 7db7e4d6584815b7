import type { Digest } from "../../oci/digest.ts";
import type { RepositoryKey } from "../../oci/reference.ts";
import type { BlobLinks, BlobRow } from "../../storage/blob-index.ts";
import type { BlobStore } from "../../storage/blob-store.ts";
import type {
  HostedBlobs,
  QuotaCondition,
} from "../../storage/hosted-index.ts";
import type { Clock } from "../../telemetry/clock.ts";

/** The most repositories that are examined if the client names none. */
const MAX_CANDIDATES = 100;

export interface MountParts {
  readonly blobs: Pick<BlobStore, "open">;
  readonly index: Pick<BlobLinks, "getLinkedBlob"> &
    Pick<HostedBlobs, "listBlobRepositories" | "mountHostedBlob">;
  readonly clock: Clock;
}

export interface MountRequest {
  readonly digest: Digest;
  /** Repositories that the client may mean, best first; undefined: any that has the blob. */
  readonly from: readonly RepositoryKey[] | undefined;
  /** Whether the client may pull from a repository, and its registry still allows it. */
  readonly mayPull: (from: RepositoryKey) => boolean;
}

export type Mounted =
  | {
      readonly kind: "mounted";
      readonly from: RepositoryKey;
      readonly sizeBytes: number;
    }
  | { readonly kind: "over-quota" }
  /** The client must upload the blob. */
  | { readonly kind: "absent" };

/**
 * Links a stored blob of another repository, mirrored or hosted, instead of receiving it again.
 *
 * @throws StorageError, IndexError
 */
export async function mountBlob(
  { blobs, index, clock }: MountParts,
  key: RepositoryKey,
  { digest, from, mayPull }: MountRequest,
  quota: QuotaCondition,
): Promise<Mounted> {
  const candidates =
    from ??
    (await index.listBlobRepositories(digest, MAX_CANDIDATES, undefined));
  for (const candidate of candidates) {
    if (!mayPull(candidate)) continue;
    const row = await index.getLinkedBlob(candidate, digest);
    if (row === undefined || !(await hasBytes(blobs, row))) continue;
    const outcome = await index.mountHostedBlob(
      key,
      digest,
      candidate,
      clock.nowMs(),
      quota,
    );
    if (outcome === "over-quota") return { kind: "over-quota" };
    if (outcome === "stored") {
      return { kind: "mounted", from: candidate, sizeBytes: row.sizeBytes };
    }
  }
  return { kind: "absent" };
}

/** Returns whether the bytes exist: another process may have removed them; an upload stores them again. */
async function hasBytes(
  blobs: Pick<BlobStore, "open">,
  { digest, sizeBytes }: BlobRow,
): Promise<boolean> {
  const reader = await blobs.open(digest, sizeBytes);
  await reader?.close();
  return reader !== undefined;
}
