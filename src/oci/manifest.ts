import type { ChildDescriptor, ChildRole } from "./descriptor.ts";
import { type Digest, parseDigest } from "./digest.ts";
import {
  fault,
  fold,
  isObject,
  isPresent,
  type ManifestDocument,
  type ManifestFault,
  parseManifestDocument,
} from "./manifest-document.ts";
import { deriveManifestType, type ManifestType } from "./manifest-type.ts";
import {
  isBlobInIndex,
  isForeignLayer,
  isMediaType,
  OCTET_STREAM,
  parseContentType,
} from "./media-type.ts";

/** The largest manifest that is fetched or stored; containerd and c/image reject larger ones. */
export const MAX_MANIFEST_BYTES = 4_194_304;

/** The parts of a manifest that a mirror needs. */
export interface ParsedManifest extends ManifestType {
  readonly ok: true;
  /** In the order of the manifest, the config first; each digest once. */
  readonly children: readonly ChildDescriptor[];
  /** The child of an image that is its config. */
  readonly config: Digest | undefined;
  /** The number of children whose digest has an unknown algorithm; they are not in `children`. */
  readonly skippedChildren: number;
  readonly subject: Digest | undefined;
}

const MAX_DESCRIPTORS = 10_000;

/**
 * Reads a manifest whose digest has been verified. Nothing is built from the bytes before their
 * depth and size are known, nothing recurses, and only named fields are copied.
 *
 * @param contentType the upstream's header; used only if the body has no media type
 * @see https://github.com/opencontainers/image-spec/blob/main/manifest.md
 */
export function parseManifest(
  bytes: Buffer,
  contentType: string | undefined,
): ParsedManifest | ManifestFault {
  const parsed = parseManifestDocument(bytes);
  return parsed.ok ? interpretManifest(parsed.document, contentType) : parsed;
}

/** Reads a parsed manifest; see {@link parseManifest}. */
export function interpretManifest(
  document: ManifestDocument,
  contentType: string | undefined,
): ParsedManifest | ManifestFault {
  const type = deriveManifestType(document, parseContentType(contentType));
  return "ok" in type ? type : readManifest(document, type);
}

function readManifest(
  document: ManifestDocument,
  type: ManifestType,
): ParsedManifest | ManifestFault {
  if (type.kind === "opaque" || type.kind === "schema1") {
    return {
      ok: true,
      ...type,
      children: [],
      config: undefined,
      skippedChildren: 0,
      subject: undefined,
    };
  }
  const isIndexKind = type.kind === "index";
  const list = (isIndexKind ? document.manifests : document.layers) ?? [];
  if (!Array.isArray(list)) {
    return fault("malformed", "manifest's list of children is not a list");
  }
  if (list.length > MAX_DESCRIPTORS) {
    return fault("too-complex", "manifest has too many children");
  }
  const children = new Map<Digest, ChildDescriptor>();
  let skippedChildren = 0;
  let configDigest: Digest | undefined;
  if (!isIndexKind && isPresent(document.config)) {
    const config = readDescriptor(document.config);
    if ("ok" in config) return config;
    configDigest = config.digest;
    if (config.digest === undefined) skippedChildren++;
    else addChild(children, config.digest, config, "blob", false);
  }
  for (const entry of list as readonly unknown[]) {
    const child = readDescriptor(entry);
    if ("ok" in child) return child;
    if (child.digest === undefined) {
      skippedChildren++;
      continue;
    }
    const { mediaType = OCTET_STREAM } = child;
    const isManifest = isIndexKind && !isBlobInIndex(mediaType);
    const isForeign =
      !isIndexKind && (child.hasUrls || isForeignLayer(mediaType));
    const role = isManifest ? "manifest" : "blob";
    addChild(children, child.digest, child, role, isForeign);
  }
  let subject: Digest | undefined;
  if (isPresent(document.subject)) {
    const descriptor = readDescriptor(document.subject);
    if ("ok" in descriptor) return descriptor;
    subject = descriptor.digest;
  }
  return {
    ok: true,
    ...type,
    children: [...children.values()],
    config: configDigest,
    skippedChildren,
    subject,
  };
}

/** A manifest may list a layer many times; it is foreign only if every entry is. */
function addChild(
  children: Map<Digest, ChildDescriptor>,
  digest: Digest,
  read: ReadDescriptor,
  role: ChildRole,
  isForeign: boolean,
): void {
  const known = children.get(digest);
  if (known !== undefined) {
    if (known.isForeign && !isForeign) {
      children.set(digest, { ...known, isForeign });
    }
    return;
  }
  const { sizeBytes, mediaType = OCTET_STREAM } = read;
  children.set(digest, { digest, sizeBytes, mediaType, role, isForeign });
}

interface DescriptorDocument {
  readonly mediaType?: unknown;
  readonly digest?: unknown;
  readonly size?: unknown;
  readonly urls?: unknown;
}

const DESCRIPTOR_KEYS = new Set([
  "mediaType",
  "digest",
  "size",
  "urls",
  "annotations",
  "data",
  "artifactType",
  "platform",
]);
const FOLDED_DESCRIPTOR_KEYS = new Set([...DESCRIPTOR_KEYS].map(fold));

interface ReadDescriptor {
  /** Undefined if the algorithm is unknown or the text is not a digest. */
  readonly digest: Digest | undefined;
  readonly sizeBytes: number;
  readonly mediaType: string | undefined;
  readonly hasUrls: boolean;
}

function readDescriptor(value: unknown): ReadDescriptor | ManifestFault {
  if (!isObject(value)) {
    return fault("malformed", "manifest's descriptor is not an object");
  }
  for (const key of Object.keys(value)) {
    if (!DESCRIPTOR_KEYS.has(key) && FOLDED_DESCRIPTOR_KEYS.has(fold(key))) {
      return fault("ambiguous", "manifest's descriptor has a key twice");
    }
  }
  const { digest, size, mediaType, urls }: DescriptorDocument = value;
  if (typeof digest !== "string") {
    return fault("malformed", "manifest's descriptor has no digest");
  }
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) {
    return fault("malformed", "manifest's descriptor has no valid size");
  }
  return {
    digest: parseDigest(digest),
    sizeBytes: size,
    mediaType: readType(mediaType),
    hasUrls: Array.isArray(urls) && urls.length > 0,
  };
}

/** Returns undefined if the type is absent or not valid in a header. */
function readType(value: unknown): string | undefined {
  return typeof value === "string" && isMediaType(value) ? value : undefined;
}
