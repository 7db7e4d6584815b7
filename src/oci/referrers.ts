import { OCI_INDEX } from "./media-type.ts";

/** What a registry answers where nothing refers to a manifest. */
export function emptyImageIndex(): Buffer {
  return imageIndex([]);
}

function imageIndex(manifests: readonly unknown[]): Buffer {
  return Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }),
  );
}

/**
 * Keeps the descriptors of some artifact types.
 *
 * @param body an image index that `parseManifest` has taken for one
 */
export function filterReferrers(
  body: Buffer,
  artifactTypes: readonly string[],
): Buffer {
  return imageIndex(
    referrersOf(body).filter(
      (descriptor) =>
        typeof descriptor === "object" &&
        descriptor !== null &&
        "artifactType" in descriptor &&
        typeof descriptor.artifactType === "string" &&
        artifactTypes.includes(descriptor.artifactType),
    ),
  );
}

/** The descriptors of an image index as they stand; an empty list for anything else. */
function referrersOf(body: Buffer): readonly unknown[] {
  let document: unknown;
  try {
    document = JSON.parse(body.toString());
  } catch {
    return [];
  }
  return typeof document === "object" &&
    document !== null &&
    "manifests" in document &&
    Array.isArray(document.manifests)
    ? document.manifests
    : [];
}
