import {
  fault,
  isObject,
  isPresent,
  type ManifestFault,
  parseManifestDocument,
} from "./manifest-document.ts";
import { interpretManifest, type ParsedManifest } from "./manifest.ts";
import { isMediaType, parseContentType } from "./media-type.ts";

/** The parts of a pushed manifest that a registry needs. */
export interface PushedDocument extends ParsedManifest {
  /**
   * Of its descriptor in a list of referrers: its own artifact type, or the media type of its config.
   *
   * @see https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers
   */
  readonly artifactType: string | undefined;
  /** Undefined without a subject: only lists of referrers show them. */
  readonly annotations: Readonly<Record<string, string>> | undefined;
}

/**
 * Reads a manifest that a client pushes. Refuses a manifest whose children it cannot determine: the
 * garbage collection would remove them.
 *
 * @param contentType the header of the request
 */
export function parsePushedManifest(
  bytes: Buffer,
  contentType: string | undefined,
): PushedDocument | ManifestFault {
  const headerType = parseContentType(contentType);
  if (contentType !== undefined && headerType === undefined) {
    return fault("media-type", "Content-Type is not a media type");
  }
  const parsed = parseManifestDocument(bytes);
  if (!parsed.ok) return parsed;
  const manifest = interpretManifest(parsed.document, headerType);
  if (!manifest.ok) return manifest;
  const { kind, mediaType, skippedChildren, subject } = manifest;
  if (headerType !== undefined && headerType !== mediaType) {
    return fault("media-type", "Content-Type is not the manifest's mediaType");
  }
  if (kind === "schema1") {
    return fault(
      "media-type",
      "schema 1 is not supported; push the image as Docker schema 2 or OCI",
    );
  }
  if (kind === "opaque") {
    return fault(
      "media-type",
      "got an unknown media type; expected an image manifest or an index, of OCI or Docker",
    );
  }
  if (skippedChildren > 0) {
    return fault(
      "malformed",
      "manifest names a digest that is neither sha256 nor sha512",
    );
  }
  const document: ReferrerDocument = parsed.document;
  if (document.schemaVersion !== 2) {
    return fault("malformed", "manifest's schemaVersion is not 2");
  }
  if (kind === "image" && !isObject(document.config)) {
    return fault("malformed", "image manifest has no config");
  }
  const annotations = readAnnotations(document.annotations);
  if (annotations === INVALID) {
    return fault("malformed", "manifest's annotations are not strings");
  }
  const artifactType = readArtifactType(document);
  if (artifactType === INVALID) {
    return fault("malformed", "manifest's artifactType is not a media type");
  }
  return {
    ...manifest,
    artifactType,
    annotations: subject === undefined ? undefined : annotations,
  };
}

const INVALID = Symbol("invalid");

interface ReferrerDocument {
  readonly schemaVersion?: unknown;
  readonly artifactType?: unknown;
  readonly config?: unknown;
  readonly annotations?: unknown;
}

function readArtifactType({
  artifactType,
  config,
}: ReferrerDocument): string | undefined | typeof INVALID {
  if (isPresent(artifactType) && artifactType !== "") {
    return typeof artifactType === "string" && isMediaType(artifactType)
      ? artifactType
      : INVALID;
  }
  return isObject(config) &&
    "mediaType" in config &&
    typeof config.mediaType === "string" &&
    isMediaType(config.mediaType)
    ? config.mediaType
    : undefined;
}

function readAnnotations(
  value: unknown,
): Readonly<Record<string, string>> | undefined | typeof INVALID {
  if (!isPresent(value)) return undefined;
  if (!isObject(value)) return INVALID;
  const entries = Object.entries(value);
  if (!entries.every(([, text]) => typeof text === "string")) return INVALID;
  // An object literal would treat a key named `__proto__` as its prototype.
  return Object.fromEntries(entries) as Record<string, string>;
}
