import { OCI_INDEX } from "./media-type.ts";

/** The response if nothing refers to a manifest. */
export function emptyImageIndex(): Buffer {
  return imageIndex([]);
}

function imageIndex(manifests: readonly unknown[]): Buffer {
  return Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }),
  );
}

/**
 * Filters an image index by artifact type.
 *
 * @param body an image index that `parseManifest` accepted
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

/** Returns the descriptors of an image index unchanged; an empty list for anything else. */
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
