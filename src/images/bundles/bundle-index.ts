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
  /** Its full name; undefined for a referrer, which belongs to its subject. */
  readonly ref: string | undefined;
  readonly digest: Digest;
  readonly mediaType: string;
  readonly sizeBytes: number;
  /** Of an index: the manifests below it that the bundle has. */
  readonly manifests: readonly Digest[];
}

/**
 * Formats `index.json`: a descriptor for each name, in the order of the names, then the referrers without
 * one: containerd would unpack each image that has a name. The same images give the same bytes.
 *
 * @see https://github.com/opencontainers/image-spec/blob/main/image-layout.md#indexjson-file
 */
export function formatBundleIndex(
  images: readonly BundleImage[],
  base: Digest | undefined,
): { readonly bytes: Buffer; readonly digest: Digest } {
  const manifests = images.toSorted(byName).map(descriptorOf);
  const document = {
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests,
    ...(base === undefined ? {} : { annotations: { [BASE_ANNOTATION]: base } }),
  };
  const bytes = Buffer.from(JSON.stringify(document));
  return { bytes, digest: digestOf(bytes) };
}

/** A tilde follows every character of a name. */
function byName(one: BundleImage, other: BundleImage): number {
  const key = ({ ref, digest }: BundleImage): string => ref ?? `~${digest}`;
  return key(one) < key(other) ? -1 : 1;
}

function descriptorOf(image: BundleImage) {
  const { ref, digest, mediaType, sizeBytes, manifests } = image;
  const annotations = {
    ...(ref === undefined ? {} : { [IMAGE_NAME_ANNOTATION]: ref }),
    ...(manifests.length === 0
      ? {}
      : { [MANIFESTS_ANNOTATION]: manifests.join(" ") }),
    ...(ref === undefined ? {} : { [REF_NAME_ANNOTATION]: ref }),
  };
  return {
    mediaType,
    digest,
    size: sizeBytes,
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
  };
}

/** Returns the path of a blob in a bundle, as in `blobs/sha256/<hex>`. */
export function blobPath(digest: Digest): string {
  return `blobs/${digestAlgorithm(digest)}/${digestHex(digest)}`;
}
