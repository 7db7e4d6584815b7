import type { ChildDescriptor, ChildRole } from "./descriptor.ts";
import { type Digest, parseDigest } from "./digest.ts";
import { scanJson } from "./json-scan.ts";
import {
  isBlobInIndex,
  isForeignLayer,
  isImageManifest,
  isIndex,
  isKnownManifestType,
  isMediaType,
  isSchema1,
  OCI_INDEX,
  OCI_MANIFEST,
  OCTET_STREAM,
  parseContentType,
  SCHEMA1,
  SCHEMA1_SIGNED,
} from "./media-type.ts";

/** What a manifest says, as far as a mirror needs to know it. */
export interface ParsedManifest {
  readonly ok: true;
  /** `opaque`: a type that Entrepot does not know; served as it is, without children. */
  readonly kind: "image" | "index" | "schema1" | "opaque";
  /** What it must be served as; fit for a header. */
  readonly mediaType: string;
  /** In the manifest's order, the config first; each digest once. */
  readonly children: readonly ChildDescriptor[];
  /** Children named by a digest of an unknown algorithm, which are not among `children`. */
  readonly skippedChildren: number;
  readonly subject: Digest | undefined;
  /** As the referrers API lists it: an image's is its config's media type where it has none. */
  readonly artifactType: string | undefined;
}

/**
 * - `malformed`: not what the specification says
 * - `too-complex`: deeper, or with more parts, than any real manifest
 * - `ambiguous`: two readers may take it for two different things (CVE-2021-41190)
 * - `media-type`: it is not what its own `mediaType` or its header says
 */
export interface ManifestFault {
  readonly ok: false;
  readonly reason: "malformed" | "too-complex" | "ambiguous" | "media-type";
  /** For the client's eyes; repeats nothing of the manifest. */
  readonly detail: string;
}

const MAX_DEPTH = 32;
const MAX_DESCRIPTORS = 10_000;
/**
 * Eleven members for each of the most descriptors that are allowed. What costs most within it, an
 * object of another shape each time, was measured at 100 ms and 20 MB.
 */
const MAX_MARKS = 250_000;
/** More annotations than anybody writes; larger objects are slow dictionaries. */
const MAX_MEMBERS = 4096;
/** The longest known key with each of its letters escaped. */
const MAX_KEY_BYTES = 128;

/**
 * Reads a manifest whose digest has been verified. Nothing is built from the bytes before their
 * depth and size are known, nothing recurses, and only named fields are copied.
 *
 * @param contentType the upstream's header; believed only where the body does not tell
 * @see https://github.com/opencontainers/image-spec/blob/main/manifest.md
 */
export function parseManifest(
  bytes: Buffer,
  contentType: string | undefined,
): ParsedManifest | ManifestFault {
  const scan = scanJson(bytes, {
    maxDepth: MAX_DEPTH,
    maxMarks: MAX_MARKS,
    maxMembers: MAX_MEMBERS,
    maxKeyBytes: MAX_KEY_BYTES,
  });
  if (scan === undefined) {
    return fault("too-complex", "manifest is too deep or has too many parts");
  }
  const document = parseJson(bytes);
  if (!isObject(document)) {
    return fault("malformed", "manifest is not a JSON object");
  }
  if (!areKeysPlain(scan.topLevelKeys)) {
    return fault("ambiguous", "manifest has a key twice");
  }
  const type = deriveType(document, parseContentType(contentType));
  return "ok" in type ? type : readManifest(document, type);
}

/** The fields that are looked at; what they hold is not known yet. */
interface ManifestDocument {
  readonly mediaType?: unknown;
  readonly artifactType?: unknown;
  readonly config?: unknown;
  readonly layers?: unknown;
  readonly manifests?: unknown;
  readonly fsLayers?: unknown;
  readonly signatures?: unknown;
  readonly subject?: unknown;
}

const DOCUMENT_KEYS = new Set([
  "schemaVersion",
  "mediaType",
  "artifactType",
  "config",
  "layers",
  "manifests",
  "fsLayers",
  "signatures",
  "subject",
  "annotations",
]);

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

function fault(reason: ManifestFault["reason"], detail: string): ManifestFault {
  return { ok: false, reason, detail };
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Go writes an empty list as null, and its readers take null for absent. */
function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/** Go matches keys whatever their case, by these two foldings: U+017F and U+212A are an s and a k to it. */
function fold(key: string): string {
  return key.toUpperCase().toLowerCase();
}

const FOLDED_DOCUMENT_KEYS = new Set([...DOCUMENT_KEYS].map(fold));
const FOLDED_DESCRIPTOR_KEYS = new Set([...DESCRIPTOR_KEYS].map(fold));

/** Whether every known key is there at most once, in its own spelling. */
function areKeysPlain(rawKeys: readonly string[]): boolean {
  const seen = new Set<string>();
  for (const rawKey of rawKeys) {
    const key: unknown = JSON.parse(rawKey);
    if (typeof key !== "string" || !FOLDED_DOCUMENT_KEYS.has(fold(key))) {
      continue;
    }
    if (!DOCUMENT_KEYS.has(key) || seen.has(key)) return false;
    seen.add(key);
  }
  return true;
}

type ManifestType = Pick<ParsedManifest, "kind" | "mediaType">;

/** The body's own `mediaType`, else a known type in the header, else the shape, else an unknown type in the header. */
function deriveType(
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
    return fault("ambiguous", "manifest is an image and an index at once");
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
  // A log-in page or an error with status 200 is JSON too, but of no such type.
  return headerType?.startsWith("application/vnd.") === true
    ? { kind: "opaque", mediaType: headerType }
    : fault("malformed", "manifest tells neither its type nor its parts");
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

function readManifest(
  document: ManifestDocument,
  type: ManifestType,
): ParsedManifest | ManifestFault {
  if (type.kind === "opaque" || type.kind === "schema1") {
    return {
      ok: true,
      ...type,
      children: [],
      skippedChildren: 0,
      subject: undefined,
      artifactType: readType(document.artifactType),
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
  let configType: string | undefined;
  if (!isIndexKind && isPresent(document.config)) {
    const config = readDescriptor(document.config);
    if ("ok" in config) return config;
    configType = config.mediaType;
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
    skippedChildren,
    subject,
    artifactType: readType(document.artifactType) ?? configType,
  };
}

/** A layer may stand in a manifest many times; it is foreign only where it is so each time. */
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

interface ReadDescriptor {
  /** Undefined: of an algorithm that is not known here, or no digest at all. */
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

/** Undefined where it is absent or could not stand in a header. */
function readType(value: unknown): string | undefined {
  return typeof value === "string" && isMediaType(value) ? value : undefined;
}
