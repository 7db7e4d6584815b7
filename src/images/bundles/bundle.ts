import type { Digest } from "../../oci/digest.ts";
import type { ListText } from "../lists/list-entry.ts";

/** The reference of an image in `index.json`: its tag in bundles of most tools, its full name in ours. */
export const REF_NAME_ANNOTATION = "org.opencontainers.image.ref.name";
/** The full name of an image, as containerd reads it. */
export const IMAGE_NAME_ANNOTATION = "io.containerd.image.name";
/** Of `index.json`: the digest of the `index.json` of the bundle that this one continues (`--since`). */
export const BASE_ANNOTATION = "io.entrepot.bundle.base";

/**
 * Of the descriptor of an index in `index.json`: the digests of the manifests below the index that the
 * bundle, with its bases, holds with all their blobs, separated by spaces. An index keeps the bytes that
 * were published, and may name platforms that the bundle does not have.
 */
export const MANIFESTS_ANNOTATION = "io.entrepot.bundle.manifests";

export const LAYOUT_FILE = "oci-layout";
export const INDEX_FILE = "index.json";
/** The content of {@link LAYOUT_FILE}. */
export const LAYOUT_TEXT = '{"imageLayoutVersion":"1.0.0"}';

/** A request of `entrepot export`. */
export interface ExportRequest {
  /** As the operator wrote them: references or patterns over stored images. */
  readonly refs: readonly string[];
  /** Lists of references, whose tags are selected among the stored ones. */
  readonly lists: readonly ListText[];
  /** As `linux/arm64`; empty: every platform that is completely stored. */
  readonly platforms: readonly string[];
  readonly withReferrers: boolean;
  /** The earlier bundle whose blobs are left out. */
  readonly since: BundleBase | undefined;
}

/** What is known of an earlier bundle. */
export interface BundleBase {
  /** Of its `index.json`. */
  readonly indexDigest: Digest;
  /** The manifests that it, with its own bases, holds with all their blobs. */
  readonly manifests: readonly BaseManifest[];
}

/** A manifest of an earlier bundle. */
export interface BaseManifest {
  readonly digest: Digest;
  /** The registry of its image; undefined: that of its subject. */
  readonly registry: string | undefined;
  /** What it names, if its bytes are at hand; otherwise they are read from the storage. */
  readonly content: BaseContent | undefined;
}

export interface BaseContent {
  readonly blobs: readonly Digest[];
  readonly subject: Digest | undefined;
}

/** The content of an exported bundle. */
export interface ExportReport {
  readonly images: readonly { readonly ref: string; readonly digest: Digest }[];
  /** Blobs in the bundle, manifests included, and their bytes. */
  readonly blobs: number;
  readonly bytes: number;
  /** Blobs that are left out because the base has them, and their bytes. */
  readonly omittedBlobs: number;
  readonly omittedBytes: number;
  /** Of `index.json`: names the bundle as the base of a later one. */
  readonly indexDigest: Digest;
}

/** A member of a bundle, in the order in which it is written. */
export interface BundleMember {
  /** As in `blobs/sha256/<hex>`. */
  readonly path: string;
  readonly sizeBytes: number;
  /** Opens the bytes; a stored blob is verified as it is read. */
  open(): AsyncIterable<Uint8Array>;
}

export interface ImportOptions {
  /** `registry/path` of a hosted registry, as in `local/team`; undefined: under the images' own names. */
  readonly into: string | undefined;
  /** The name of the only image, or the repository of images that have a tag and no name. */
  readonly name: string | undefined;
  readonly isPinned: boolean;
}

export interface ImportedImage {
  readonly ref: string;
  readonly digest: Digest;
  /** Manifests that its index names and that the bundle does not have, such as other platforms. */
  readonly absentManifests: number;
}

/** The result of an import. */
export interface ImportReport {
  readonly images: readonly ImportedImage[];
  /** Blobs and bytes that were not stored before. */
  readonly blobs: number;
  readonly bytes: number;
}
