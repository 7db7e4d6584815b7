import { parseManifest } from "./manifest.ts";
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
 * @param body an image index that {@link isImageIndex} has accepted
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

/** Whether the bytes are an image index of sane depth and size. */
export function isImageIndex(body: Buffer): boolean {
  const parsed = parseManifest(body, undefined);
  return parsed.ok && parsed.mediaType === OCI_INDEX;
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
