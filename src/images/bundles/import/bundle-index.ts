import { type Digest, digestOf, parseDigest } from "../../../oci/digest.ts";
import {
  isObject,
  parseManifestDocument,
} from "../../../oci/manifest-document.ts";
import {
  BASE_ANNOTATION,
  INDEX_FILE,
  LAYOUT_FILE,
  MANIFESTS_ANNOTATION,
} from "../bundle.ts";
import { refuseBundle } from "./bundle-refusal.ts";

/** A manifest in `index.json`. */
export interface BundleEntry {
  readonly digest: Digest;
  readonly mediaType: string | undefined;
  /** The manifests below an index that the bundle and its bases hold; undefined: not stated. */
  readonly held: ReadonlySet<string> | undefined;
  readonly annotations: ReadonlyMap<string, string>;
}

/** A checked `index.json`. */
export interface BundleIndex {
  /** Of the file. */
  readonly digest: Digest;
  readonly entries: readonly BundleEntry[];
  /** The `index.json` of the bundle that this one continues. */
  readonly base: Digest | undefined;
}

const MAX_ENTRIES = 10_000;

interface IndexDocument {
  readonly manifests?: unknown;
  readonly annotations?: unknown;
}

interface LayoutDocument {
  readonly imageLayoutVersion?: unknown;
}

interface EntryDocument {
  readonly digest?: unknown;
  readonly mediaType?: unknown;
  readonly annotations?: unknown;
}

/**
 * Parses `index.json`.
 *
 * @throws RegistryError
 */
export function parseBundleIndex(bytes: Buffer): BundleIndex {
  const parsed = parseManifestDocument(bytes);
  if (!parsed.ok) throw refuseBundle(`${INDEX_FILE}: ${parsed.detail}`);
  const { manifests, annotations }: IndexDocument = parsed.document;
  if (!Array.isArray(manifests)) {
    throw refuseBundle(`${INDEX_FILE}: got no list of manifests; expected one`);
  }
  if (manifests.length > MAX_ENTRIES) {
    throw refuseBundle(
      `${INDEX_FILE}: got more than ${MAX_ENTRIES} manifests; expected fewer`,
    );
  }
  const baseText = readAnnotations(annotations).get(BASE_ANNOTATION);
  const base = baseText === undefined ? undefined : parseDigest(baseText);
  if (baseText !== undefined && base === undefined) {
    throw refuseBundle(
      `${INDEX_FILE}: got an invalid ${BASE_ANNOTATION}; expected a digest`,
    );
  }
  return {
    digest: digestOf(bytes),
    entries: (manifests as readonly unknown[]).map(readEntry),
    base,
  };
}

function readEntry(value: unknown, at: number): BundleEntry {
  const { digest, mediaType, annotations }: EntryDocument = isObject(value)
    ? value
    : {};
  const parsed = typeof digest === "string" ? parseDigest(digest) : undefined;
  if (parsed === undefined) {
    throw refuseBundle(
      `${INDEX_FILE}: got an invalid digest in manifest ${at + 1}; expected sha256 or sha512`,
    );
  }
  const texts = readAnnotations(annotations);
  const held = texts.get(MANIFESTS_ANNOTATION);
  return {
    digest: parsed,
    mediaType: typeof mediaType === "string" ? mediaType : undefined,
    held: held === undefined ? undefined : new Set(held.split(" ")),
    annotations: texts,
  };
}

/** Values that are not text are left out. */
function readAnnotations(value: unknown): ReadonlyMap<string, string> {
  if (!isObject(value)) return new Map();
  return new Map(
    Object.entries(value).filter(
      (entry): entry is [string, string] => typeof entry[1] === "string",
    ),
  );
}

/**
 * Checks the content of `oci-layout`.
 *
 * @throws RegistryError
 */
export function checkLayout(bytes: Buffer): void {
  const parsed = parseManifestDocument(bytes);
  const { imageLayoutVersion }: LayoutDocument = parsed.ok
    ? (parsed.document as LayoutDocument)
    : {};
  if (
    typeof imageLayoutVersion !== "string" ||
    !/^1\.[0-9]+\.[0-9]+$/.test(imageLayoutVersion)
  ) {
    throw refuseBundle(
      `${LAYOUT_FILE}: got another version of the layout; expected 1.0.0`,
    );
  }
}
