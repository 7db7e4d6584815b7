import { scanJson } from "./json-scan.ts";

/**
 * - `malformed`: contradicts the specification
 * - `too-complex`: deeper, or with more parts, than any real manifest
 * - `ambiguous`: two readers may disagree on what it is (CVE-2021-41190)
 * - `media-type`: contradicts its own `mediaType` or its header
 */
export interface ManifestFault {
  readonly ok: false;
  readonly reason: "malformed" | "too-complex" | "ambiguous" | "media-type";
  /** Sent to the client; contains no text of the manifest. */
  readonly detail: string;
}

/** The fields of a manifest that are read; their values are not checked yet. */
export interface ManifestDocument {
  readonly mediaType?: unknown;
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

const MAX_DEPTH = 32;
/**
 * Eleven members for each of the allowed descriptors. The most expensive content within this bound,
 * objects that all differ in shape, takes 100 ms and 20 MB.
 */
const MAX_MARKS = 250_000;
/** More annotations than any real manifest has; larger objects become slow dictionaries. */
const MAX_MEMBERS = 4096;
/** The longest known key with each of its letters escaped. */
const MAX_KEY_BYTES = 128;

/** Parses a manifest after its depth and its number of parts were found to be within bounds. */
export function parseManifestDocument(
  bytes: Buffer,
): { readonly ok: true; readonly document: ManifestDocument } | ManifestFault {
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
  return areKeysPlain(scan.topLevelKeys)
    ? { ok: true, document }
    : fault("ambiguous", "manifest has a key twice");
}

export function fault(
  reason: ManifestFault["reason"],
  detail: string,
): ManifestFault {
  return { ok: false, reason, detail };
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return undefined;
  }
}

export function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether a field is present. Go writes an empty list as null, and reads null as absent. */
export function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/** Folds a key as Go does, which ignores case: U+017F is equal to s, and U+212A to k. */
export function fold(key: string): string {
  return key.toUpperCase().toLowerCase();
}

const FOLDED_DOCUMENT_KEYS = new Set([...DOCUMENT_KEYS].map(fold));

/** Whether every known key occurs at most once, and in its exact spelling. */
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
