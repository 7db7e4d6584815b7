import {
  fault,
  isPresent,
  type ManifestDocument,
  type ManifestFault,
} from "./manifest-document.ts";
import {
  isImageManifest,
  isIndex,
  isKnownManifestType,
  isMediaType,
  isSchema1,
  OCI_INDEX,
  OCI_MANIFEST,
  SCHEMA1,
  SCHEMA1_SIGNED,
} from "./media-type.ts";

export interface ManifestType {
  /** `opaque`: a type unknown to Entrepot; served unchanged, without children. */
  readonly kind: "image" | "index" | "schema1" | "opaque";
  /** The `Content-Type` to serve it with; valid in a header. */
  readonly mediaType: string;
}

/**
 * Derives the type of a manifest from the first of: the body's own `mediaType`, a known type in the
 * header, the shape, an unknown type in the header. A body with two shapes, or with a shape that
 * contradicts its type, is rejected: engines would disagree on what it is (CVE-2021-41190).
 *
 * @param headerType bare and lower-case, as `parseContentType` returns it
 */
export function deriveManifestType(
  document: ManifestDocument,
  headerType: string | undefined,
): ManifestType | ManifestFault {
  const shapes = {
    image: isPresent(document.config) || isPresent(document.layers),
    index: isPresent(document.manifests),
    schema1: isPresent(document.fsLayers),
  };
  if (
    Number(shapes.image) + Number(shapes.index) + Number(shapes.schema1) >
    1
  ) {
    return fault("ambiguous", "manifest is both an image and an index");
  }
  const { mediaType: bodyType } = document;
  if (isPresent(bodyType) && bodyType !== "") {
    if (typeof bodyType !== "string" || !isMediaType(bodyType)) {
      return fault("malformed", "manifest's mediaType is not a media type");
    }
    if (
      headerType !== undefined &&
      isKnownManifestType(headerType) &&
      headerType !== bodyType
    ) {
      return fault(
        "media-type",
        "Content-Type is not the manifest's mediaType",
      );
    }
    return withShape(bodyType, shapes);
  }
  if (headerType !== undefined && isKnownManifestType(headerType)) {
    return withShape(headerType, shapes);
  }
  if (shapes.index) return { kind: "index", mediaType: OCI_INDEX };
  if (shapes.image) return { kind: "image", mediaType: OCI_MANIFEST };
  if (shapes.schema1) {
    const isSigned = isPresent(document.signatures);
    return { kind: "schema1", mediaType: isSigned ? SCHEMA1_SIGNED : SCHEMA1 };
  }
  // A log-in page or an error with status 200 may be JSON too, but has none of these types.
  return headerType?.startsWith("application/vnd.") === true
    ? { kind: "opaque", mediaType: headerType }
    : fault("malformed", "manifest has neither a media type nor a known shape");
}

function withShape(
  mediaType: string,
  shapes: Readonly<Record<"image" | "index" | "schema1", boolean>>,
): ManifestType | ManifestFault {
  const kind = isIndex(mediaType)
    ? "index"
    : isImageManifest(mediaType)
      ? "image"
      : isSchema1(mediaType)
        ? "schema1"
        : "opaque";
  const { image, index, schema1 } = shapes;
  const isOther =
    (kind === "index" && (image || schema1)) ||
    (kind === "image" && (index || schema1)) ||
    (kind === "schema1" && (image || index));
  return isOther
    ? fault("media-type", "manifest has the parts of another media type")
    : { kind, mediaType };
}
