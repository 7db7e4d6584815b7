import type { Digest } from "./digest.ts";
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

/** A manifest in a list of referrers. */
export interface Referrer {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly mediaType: string;
  readonly artifactType: string | undefined;
  readonly annotations: Readonly<Record<string, string>> | undefined;
}

/** An image index of referrers that is written one descriptor at a time. */
export interface ReferrersList {
  /** @returns false if the list has no room; the first descriptor always has */
  add(referrer: Referrer): boolean;
  /** Returns the image index. */
  end(): Buffer;
}

/** Starts a list of referrers. @param maxBytes of the whole index */
export function formatReferrers(maxBytes: number): ReferrersList {
  const texts: string[] = [];
  let bytes = emptyImageIndex().length;
  return {
    add: ({ mediaType, digest, sizeBytes, artifactType, annotations }) => {
      const descriptor = { mediaType, digest, size: sizeBytes };
      const text = JSON.stringify({ ...descriptor, artifactType, annotations });
      bytes += Buffer.byteLength(text) + 1;
      if (bytes > maxBytes && texts.length > 0) return false;
      texts.push(text);
      return true;
    },
    end: () =>
      Buffer.from(
        `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[${texts.join(",")}]}`,
      ),
  };
}

/**
 * Adds a referrer to a list that has other ones.
 *
 * @param body an image index; undefined: an empty list
 * @returns undefined if the list has the referrer already
 */
export function addReferrer(
  body: Buffer | undefined,
  { sizeBytes: size, ...referrer }: Referrer,
): Buffer | undefined {
  const known = body === undefined ? [] : referrersOf(body);
  const isKnown = known.some(
    (descriptor) =>
      typeof descriptor === "object" &&
      descriptor !== null &&
      "digest" in descriptor &&
      descriptor.digest === referrer.digest,
  );
  return isKnown ? undefined : imageIndex([...known, { ...referrer, size }]);
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
