import { type Digest, parseDigest } from "./digest.ts";
import { scanJson } from "./json-scan.ts";
import { isObject, parseManifestDocument } from "./manifest-document.ts";

/** Longer than any part of a real platform. */
const PART = /^[a-zA-Z0-9._-]{1,64}$/;
/** BuildKit's placeholder for the platform of an attestation. */
const NO_PLATFORM = "unknown/unknown";
/** A config has an entry for each layer and each variable; real ones stay far below. */
const CONFIG_BOUNDS = {
  maxDepth: 32,
  maxMarks: 250_000,
  maxMembers: 4_096,
  maxKeyBytes: 128,
};

/** `os/architecture` or `os/architecture/variant`, as an operator names a platform. */
export const PLATFORM_PATTERN =
  "^[a-z0-9._-]{1,64}/[a-z0-9._-]{1,64}(?:/[a-z0-9._-]{1,64})?$";

interface PlatformDocument {
  readonly os?: unknown;
  readonly architecture?: unknown;
  readonly variant?: unknown;
}

/**
 * Reads the platform from an image's config, as `linux/arm64/v8`.
 *
 * @returns undefined if the config has none, as that of an artifact
 * @see https://github.com/opencontainers/image-spec/blob/main/config.md
 */
export function readConfigPlatform(bytes: Buffer): string | undefined {
  if (scanJson(bytes, CONFIG_BOUNDS) === undefined) return undefined;
  try {
    return platformText(JSON.parse(bytes.toString()));
  } catch {
    return undefined;
  }
}

/** Returns the platform of each child of an index; children without a platform are left out. */
export function readIndexPlatforms(bytes: Buffer): ReadonlyMap<Digest, string> {
  const platforms = new Map<Digest, string>();
  const parsed = parseManifestDocument(bytes);
  if (!parsed.ok || !Array.isArray(parsed.document.manifests)) return platforms;
  for (const entry of parsed.document.manifests as readonly unknown[]) {
    if (!isObject(entry)) continue;
    const { digest, platform }: { digest?: unknown; platform?: unknown } =
      entry;
    const name = typeof digest === "string" ? parseDigest(digest) : undefined;
    const text = platformText(platform);
    if (name !== undefined && text !== undefined) platforms.set(name, text);
  }
  return platforms;
}

/** Returns whether it is the placeholder for no platform. */
export function isUnknownPlatform(platform: string): boolean {
  return platform === NO_PLATFORM;
}

/**
 * Returns whether a wanted platform, such as `linux/arm64`, covers one; without a variant it covers
 * all. An absent variant of arm64 is v8, that of amd64 v1, as engines read them.
 */
export function coversPlatform(wanted: string, platform: string): boolean {
  const [one, other] = [withoutImplied(wanted), withoutImplied(platform)];
  return other === one || other.startsWith(`${one}/`);
}

function withoutImplied(platform: string): string {
  return platform.replace(/\/(?:(arm64)\/v8|(amd64)\/v1)$/, "/$1$2");
}

function platformText(value: unknown): string | undefined {
  if (!isObject(value)) return undefined;
  const { os, architecture, variant }: PlatformDocument = value;
  if (!isPart(os) || !isPart(architecture)) return undefined;
  return isPart(variant)
    ? `${os}/${architecture}/${variant}`
    : `${os}/${architecture}`;
}

function isPart(value: unknown): value is string {
  return typeof value === "string" && PART.test(value);
}
