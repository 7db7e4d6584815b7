import type { Digest } from "../../oci/digest.ts";

/** The reference of an image in `index.json`: its tag in bundles of most tools, its full name in ours. */
export const REF_NAME_ANNOTATION = "org.opencontainers.image.ref.name";
/** The full name of an image, as containerd reads it. */
export const IMAGE_NAME_ANNOTATION = "io.containerd.image.name";
/** Of `index.json`: the digest of the `index.json` of the bundle that this one continues (`--since`). */
export const BASE_ANNOTATION = "io.entrepot.bundle.base";

export const LAYOUT_FILE = "oci-layout";
export const INDEX_FILE = "index.json";
/** The content of {@link LAYOUT_FILE}. */
export const LAYOUT_TEXT = '{"imageLayoutVersion":"1.0.0"}';

/** A request of `entrepot export`. */
export interface ExportRequest {
  /** As the operator wrote them: references or patterns over stored images. */
  readonly refs: readonly string[];
  /** As `linux/arm64`; empty: every stored platform. */
  readonly platforms: readonly string[];
  readonly withReferrers: boolean;
  /** The bundle whose blobs are left out. */
  readonly since:
    | { readonly indexDigest: Digest; readonly blobs: ReadonlySet<Digest> }
    | undefined;
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
  readonly isPinned: boolean;
}

/** The result of an import. */
export interface ImportReport {
  readonly images: readonly { readonly ref: string; readonly digest: Digest }[];
  /** Blobs and bytes that were not stored before. */
  readonly blobs: number;
  readonly bytes: number;
}
