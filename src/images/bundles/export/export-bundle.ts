import type { Readable } from "node:stream";
import type { Digest } from "../../../oci/digest.ts";
import { RegistryError } from "../../../oci/errors.ts";
import { MAX_MANIFEST_BYTES } from "../../../oci/manifest.ts";
import type { TrackedBlobStore } from "../../../storage/tracked-blob-store.ts";
import {
  type BundleMember,
  type ExportReport,
  type ExportRequest,
  INDEX_FILE,
  LAYOUT_FILE,
  LAYOUT_TEXT,
} from "../bundle.ts";
import { formatBundleIndex } from "../bundle-index.ts";
import { packBundle } from "./bundle-tar.ts";
import { planExport, type PlanParts } from "./plan-export.ts";
import { storedMember } from "./stored-member.ts";

export interface ExportParts extends PlanParts {
  readonly blobs: PlanParts["blobs"] & Pick<TrackedBlobStore, "open">;
}

/** A bundle that is written while its archive is read. */
export interface OpenBundle {
  readonly report: ExportReport;
  /**
   * The tar archive. It fails if a stored blob is damaged. The caller consumes or destroys it; until it is
   * closed, nothing in it is evicted or deleted.
   */
  readonly archive: Readable;
}

export interface OpenBundleOptions {
  /** Ends the search for content; the caller destroys an archive. */
  readonly signal: AbortSignal;
  /** Called with the bytes of blobs that were written since the last call. */
  readonly onBytes?: (bytes: number) => void;
}

/**
 * Opens stored images as an OCI image layout in a tar archive: `oci-layout`, `index.json`, then every blob
 * once, by digest. The same content gives the same bytes.
 *
 * @throws RegistryError that names every image that is not stored, or not completely; the signal's reason
 * @see https://github.com/opencontainers/image-spec/blob/main/image-layout.md
 */
export async function openBundle(
  parts: ExportParts,
  request: ExportRequest,
  { signal, onBytes = () => undefined }: OpenBundleOptions,
): Promise<OpenBundle> {
  const plan = await planExport(parts, request, signal);
  const index = formatBundleIndex(plan.images, request.since?.indexDigest);
  if (index.bytes.length > MAX_MANIFEST_BYTES) {
    plan.release();
    throw new RegistryError("MANIFEST_INVALID", {
      status: 400,
      detail: `got images whose ${INDEX_FILE} has ${index.bytes.length} bytes; expected at most ${MAX_MANIFEST_BYTES}: export them in several bundles`,
    });
  }
  const digests = [...plan.blobs.keys()].toSorted();
  const archive = packBundle([
    textMember(LAYOUT_FILE, Buffer.from(LAYOUT_TEXT)),
    textMember(INDEX_FILE, index.bytes),
    ...digests.map((digest) =>
      counted(
        storedMember(parts.blobs, digest, plan.blobs.get(digest) ?? 0),
        onBytes,
      ),
    ),
  ]);
  archive.once("close", () => plan.release());
  return {
    archive,
    report: {
      images: plan.images
        .flatMap(({ ref, digest }) =>
          ref === undefined ? [] : [{ ref, digest }],
        )
        .toSorted((one, other) => (one.ref < other.ref ? -1 : 1)),
      blobs: plan.blobs.size,
      bytes: sum(plan.blobs),
      omittedBlobs: plan.omitted.size,
      omittedBytes: sum(plan.omitted),
      indexDigest: index.digest,
    },
  };
}

function textMember(path: string, bytes: Buffer): BundleMember {
  return {
    path,
    sizeBytes: bytes.length,
    async *open() {
      yield bytes;
    },
  };
}

function counted(
  member: BundleMember,
  onBytes: (bytes: number) => void,
): BundleMember {
  return {
    ...member,
    async *open() {
      for await (const chunk of member.open()) {
        yield chunk;
        onBytes(chunk.length);
      }
    },
  };
}

function sum(sizes: ReadonlyMap<Digest, number>): number {
  let bytes = 0;
  for (const size of sizes.values()) bytes += size;
  return bytes;
}
