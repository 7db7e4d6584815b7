import {
  type Digest,
  digestAlgorithm,
  digestHex,
  digestOf,
} from "../../oci/digest.ts";
import { OCI_INDEX } from "../../oci/media-type.ts";
import {
  BASE_ANNOTATION,
  IMAGE_NAME_ANNOTATION,
  MANIFESTS_ANNOTATION,
  REF_NAME_ANNOTATION,
} from "./bundle.ts";

/** An image of a bundle. */
export interface BundleImage {
  /** Its full name. */
  readonly ref: string;
  readonly digest: Digest;
  readonly mediaType: string;
  readonly sizeBytes: number;
  /** Of an index: the manifests below it that the bundle has. */
  readonly manifests: readonly Digest[];
}

/**
 * Formats `index.json`: a descriptor for each name, in the order of the names. The same images give
 * the same bytes.
 *
 * @see https://github.com/opencontainers/image-spec/blob/main/image-layout.md#indexjson-file
 */
export function formatBundleIndex(
  images: readonly BundleImage[],
  base: Digest | undefined,
): { readonly bytes: Buffer; readonly digest: Digest } {
  const manifests = images
    .toSorted((one, other) => (one.ref < other.ref ? -1 : 1))
    .map(({ ref, digest, mediaType, sizeBytes, manifests: below }) => ({
      mediaType,
      digest,
      size: sizeBytes,
      annotations: {
        [IMAGE_NAME_ANNOTATION]: ref,
        ...(below.length === 0
          ? {}
          : { [MANIFESTS_ANNOTATION]: below.join(" ") }),
        [REF_NAME_ANNOTATION]: ref,
      },
    }));
  const document = {
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests,
    ...(base === undefined ? {} : { annotations: { [BASE_ANNOTATION]: base } }),
  };
  const bytes = Buffer.from(JSON.stringify(document));
  return { bytes, digest: digestOf(bytes) };
}

/** Returns the path of a blob in a bundle, as in `blobs/sha256/<hex>`. */
export function blobPath(digest: Digest): string {
  return `blobs/${digestAlgorithm(digest)}/${digestHex(digest)}`;
}
