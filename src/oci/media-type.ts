/** @see https://github.com/opencontainers/image-spec/blob/main/media-types.md */
export const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
export const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
/** @see https://distribution.github.io/distribution/spec/manifest-v2-2/ */
export const DOCKER_LIST =
  "application/vnd.docker.distribution.manifest.list.v2+json";
export const DOCKER_MANIFEST =
  "application/vnd.docker.distribution.manifest.v2+json";
/** Schema 1, unsigned and signed; the digest of a signed one covers only part of its bytes. */
export const SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json";
export const SCHEMA1_SIGNED =
  "application/vnd.docker.distribution.manifest.v1+prettyjws";

/** The `Content-Type` of blobs; also the default if a descriptor has no type. */
export const OCTET_STREAM = "application/octet-stream";

/**
 * The `Accept` of every manifest request to an upstream. A client's is never forwarded: an upstream
 * may return another manifest for another `Accept`, and a tag has one entry in the cache.
 */
export const UPSTREAM_ACCEPT = `${OCI_INDEX}, ${OCI_MANIFEST}, ${DOCKER_LIST}, ${DOCKER_MANIFEST}, */*;q=0.1`;

/** Lists manifests by platform. */
export function isIndex(mediaType: string): boolean {
  return mediaType === OCI_INDEX || mediaType === DOCKER_LIST;
}

/** Lists a config and layers. */
export function isImageManifest(mediaType: string): boolean {
  return mediaType === OCI_MANIFEST || mediaType === DOCKER_MANIFEST;
}

/** Its digest does not cover all of its bytes, so it can't be verified or stored. */
export function isSchema1(mediaType: string): boolean {
  return mediaType === SCHEMA1 || mediaType === SCHEMA1_SIGNED;
}

export function isKnownManifestType(mediaType: string): boolean {
  return (
    isIndex(mediaType) || isImageManifest(mediaType) || isSchema1(mediaType)
  );
}

/**
 * Layers that engines may fetch from `urls` instead; registries need not store them.
 *
 * @see https://github.com/opencontainers/image-spec/blob/main/layer.md#non-distributable-layers
 */
export function isForeignLayer(mediaType: string): boolean {
  return (
    mediaType.startsWith("application/vnd.oci.image.layer.nondistributable.") ||
    mediaType.startsWith("application/vnd.docker.image.rootfs.foreign.")
  );
}

/**
 * Returns whether an entry of an index is a blob: BuildKit exports its cache as an index whose
 * `manifests` are layers and a config.
 */
export function isBlobInIndex(mediaType: string): boolean {
  return BLOB_TYPE_PREFIXES.some((prefix) => mediaType.startsWith(prefix));
}

const BLOB_TYPE_PREFIXES = [
  "application/vnd.oci.image.layer.",
  "application/vnd.oci.image.config.",
  "application/vnd.docker.image.rootfs.",
  "application/vnd.docker.container.image.",
  "application/vnd.buildkit.cacheconfig.",
] as const;

/** type "/" subtype, each as RFC 6838 section 4.2 allows. */
const MEDIA_TYPE =
  /^[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}\/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}$/;
const MAX_CONTENT_TYPE_LENGTH = 1024;
const PRINTABLE = /^[\t -~]*$/;

/** Returns whether a text is a media type without parameters, valid in a header. */
export function isMediaType(text: string): boolean {
  return MEDIA_TYPE.test(text);
}

/**
 * Returns the media type of a `Content-Type` in lower case, without parameters. Undefined if the text
 * is not a media type, is too long or is not valid in a header.
 */
export function parseContentType(text: string | undefined): string | undefined {
  if (text === undefined || text.length > MAX_CONTENT_TYPE_LENGTH) {
    return undefined;
  }
  if (!PRINTABLE.test(text)) return undefined;
  const [bare = ""] = text.split(";", 1);
  const mediaType = bare.trim().toLowerCase();
  return isMediaType(mediaType) ? mediaType : undefined;
}
