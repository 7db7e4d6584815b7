import {
  createDigestHash,
  type Digest,
  digestAlgorithm,
  digestSoFar,
} from "../../../oci/digest.ts";
import type { BlobStore } from "../../../storage/blob-store.ts";
import type { BundleMember } from "../bundle.ts";
import { blobPath } from "../bundle-index.ts";

/** Bytes that are read, hashed and passed on in one step. */
const CHUNK_BYTES = 256 * 1024;

/** A stored blob that cannot be written into a bundle. */
export class WrongBlobError extends Error {
  readonly digest: Digest;

  constructor(digest: Digest, reason: string) {
    super(`${digest} ${reason}; run 'entrepot scrub --repair'`);
    this.name = "WrongBlobError";
    this.digest = digest;
  }
}

/** Returns the member of a stored blob. Its last bytes are withheld until its digest is verified. */
export function storedMember(
  blobs: Pick<BlobStore, "open">,
  digest: Digest,
  sizeBytes: number,
): BundleMember {
  return {
    path: blobPath(digest),
    sizeBytes,
    open: () => readVerified(blobs, digest, sizeBytes),
  };
}

/** @throws WrongBlobError, StorageError */
async function* readVerified(
  blobs: Pick<BlobStore, "open">,
  digest: Digest,
  sizeBytes: number,
): AsyncGenerator<Uint8Array> {
  const reader = await blobs.open(digest, sizeBytes);
  if (reader === undefined) {
    throw new WrongBlobError(digest, "is missing or has another size");
  }
  const algorithm = digestAlgorithm(digest);
  const hash = createDigestHash(algorithm);
  try {
    for (let position = 0; position < sizeBytes;) {
      // Not reused: the archive passes it on without a copy.
      const buffer = Buffer.allocUnsafeSlow(
        Math.min(CHUNK_BYTES, sizeBytes - position),
      );
      const bytes = await reader.read(buffer, position);
      if (bytes === 0) throw new WrongBlobError(digest, "ends early");
      position += bytes;
      const chunk = buffer.subarray(0, bytes);
      hash.update(chunk);
      if (position === sizeBytes) check(digest, digestSoFar(algorithm, hash));
      yield chunk;
    }
    if (sizeBytes === 0) check(digest, digestSoFar(algorithm, hash));
  } finally {
    await reader.close();
  }
}

function check(wanted: Digest, got: Digest): void {
  if (got !== wanted) {
    throw new WrongBlobError(wanted, `is damaged: its bytes have ${got}`);
  }
}
