import type { Digest } from "../../../oci/digest.ts";
import { parseManifest } from "../../../oci/manifest.ts";
import { Pace } from "../../../retention/victim-search.ts";
import type { BlobRecords } from "../../../storage/blob-index.ts";
import type { BlobStore } from "../../../storage/blob-store.ts";
import type { BundleBase } from "../bundle.ts";

/**
 * Finds the blobs that a reader of an earlier bundle has: those in it, and those that its manifests name,
 * which are in its own bases. A manifest that is no longer stored names none: its blobs are written again.
 *
 * @throws IndexError, StorageError
 */
export async function readBase(
  {
    index,
    blobs,
  }: {
    readonly index: Pick<BlobRecords, "getBlob">;
    readonly blobs: Pick<BlobStore, "read">;
  },
  base: BundleBase,
): Promise<ReadonlySet<Digest>> {
  const pace = new Pace();
  const held = new Set(base.blobs);
  for (const digest of base.manifests) {
    held.add(digest);
    await pace.step();
    const row = await index.getBlob(digest);
    if (row?.mediaType === undefined) continue;
    const bytes = await blobs.read(digest, row.sizeBytes);
    const parsed = bytes && parseManifest(bytes, row.mediaType);
    if (parsed?.ok !== true) continue;
    for (const { role, isForeign, digest: child } of parsed.children) {
      if (role === "blob" && !isForeign) held.add(child);
    }
  }
  return held;
}
