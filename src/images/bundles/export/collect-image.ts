import type { Digest } from "../../../oci/digest.ts";
import { RegistryError } from "../../../oci/errors.ts";
import type { ChildDescriptor } from "../../../oci/descriptor.ts";
import { isIndex } from "../../../oci/media-type.ts";
import { coversPlatform, isUnknownPlatform } from "../../../oci/platform.ts";
import type { RepositoryKey } from "../../../oci/reference.ts";
import type { StoredContent, StoredManifest } from "./stored-content.ts";

/** The stored parts of an image that go into a bundle. */
export interface CollectedImage {
  /** Manifests and blobs, with their sizes. */
  readonly parts: ReadonlyMap<Digest, number>;
  /** Manifests below the image's own, in the order of the index. */
  readonly manifests: readonly Digest[];
  /** Parts that are not stored; the image cannot be exported then. */
  readonly missing: readonly Digest[];
  /** Wanted platforms that the image does not have. */
  readonly absentPlatforms: readonly string[];
  /** Platforms that an index names. */
  readonly offeredPlatforms: readonly string[];
}

/** Indexes in an index; real ones have no second level. */
const MAX_DEPTH = 8;
/** Manifests and blobs of one image, each as often as it is named: more than a bundle may have. */
const MAX_NAMED_PARTS = 200_000;

interface Collecting {
  readonly parts: Map<Digest, number>;
  readonly manifests: Set<Digest>;
  readonly missing: Digest[];
  readonly matched: Set<string>;
  readonly offered: Set<string>;
}

/**
 * Collects an image: its manifest and blobs; of an index, the children of the wanted platforms, or those
 * that are completely stored if none is named. An image without an index is collected whole.
 *
 * @throws RegistryError if it names too many parts, as indexes do that share their children over many levels
 */
export async function collectImage(
  content: StoredContent,
  key: RepositoryKey,
  manifest: StoredManifest,
  platforms: readonly string[],
  maxNamedParts = MAX_NAMED_PARTS,
): Promise<CollectedImage> {
  const collector = new Collector(content, key, maxNamedParts);
  const { parts, manifests, missing, matched, offered } =
    await collector.collect(manifest, platforms, 0);
  const isSelective = manifest.parsed?.kind === "index";
  return {
    parts,
    manifests: [...manifests].slice(1),
    missing,
    absentPlatforms: isSelective
      ? platforms.filter((wanted) => !matched.has(wanted))
      : [],
    offeredPlatforms: [...offered],
  };
}

class Collector {
  readonly #content: StoredContent;
  readonly #key: RepositoryKey;
  readonly #maxNamedParts: number;
  #namedParts = 0;

  constructor(
    content: StoredContent,
    key: RepositoryKey,
    maxNamedParts: number,
  ) {
    this.#content = content;
    this.#key = key;
    this.#maxNamedParts = maxNamedParts;
  }

  async collect(
    manifest: StoredManifest,
    platforms: readonly string[],
    depth: number,
  ): Promise<Collecting> {
    const collecting: Collecting = {
      parts: new Map([[manifest.digest, manifest.sizeBytes]]),
      manifests: new Set([manifest.digest]),
      missing: [],
      matched: new Set(),
      offered: new Set(),
    };
    const children = manifest.parsed?.children ?? [];
    this.#namedParts += children.length;
    if (this.#namedParts > this.#maxNamedParts) {
      throw new RegistryError("MANIFEST_INVALID", {
        status: 400,
        detail: `got an image that names more than ${this.#maxNamedParts} manifests and blobs, ${manifest.digest} among them; expected fewer`,
      });
    }
    for (const child of children) {
      if (child.role === "blob") await this.#collectBlob(child, collecting);
    }
    const below = children.filter(({ role }) => role === "manifest");
    await (platforms.length === 0
      ? this.#collectComplete(manifest, below, collecting, depth)
      : this.#collectWanted(manifest, below, collecting, platforms, depth));
    return collecting;
  }

  async #collectBlob(
    { digest, isForeign }: ChildDescriptor,
    { parts, missing }: Collecting,
  ): Promise<void> {
    if (parts.has(digest)) return;
    const sizeBytes = await this.#content.findBlob(this.#key, digest);
    if (sizeBytes !== undefined) parts.set(digest, sizeBytes);
    else if (!isForeign) missing.push(digest);
  }

  /** Collects the children that are completely stored: at least one with a platform, if any has one. */
  async #collectComplete(
    { platforms }: StoredManifest,
    children: readonly ChildDescriptor[],
    collecting: Collecting,
    depth: number,
  ): Promise<void> {
    const isForMachines = ({ digest }: ChildDescriptor): boolean =>
      !isUnknownPlatform(platforms.get(digest) ?? "");
    const counted = children.some(isForMachines) ? isForMachines : () => true;
    let isOneComplete = children.length === 0;
    let missing: readonly Digest[] | undefined;
    for (const child of children) {
      const found = await this.#collectChild(child, [], depth);
      if (found.missing.length === 0) {
        merge(collecting, found);
        isOneComplete ||= counted(child);
      } else if (counted(child)) {
        // The child with the most parts is the one that was pulled, and lost some.
        if (missing === undefined || found.parts.size > 1) {
          missing = found.missing;
        }
      }
    }
    if (!isOneComplete) collecting.missing.push(...(missing ?? []));
  }

  async #collectWanted(
    { platforms }: StoredManifest,
    children: readonly ChildDescriptor[],
    collecting: Collecting,
    wanted: readonly string[],
    depth: number,
  ): Promise<void> {
    for (const child of children) {
      const platform = platforms.get(child.digest);
      if (platform === undefined) {
        // An index in an index has no platform; its children have.
        if (!isIndex(child.mediaType)) continue;
        const found = await this.#collectChild(child, wanted, depth);
        if (found.matched.size > 0) merge(collecting, found);
        for (const one of found.matched) collecting.matched.add(one);
        for (const one of found.offered) collecting.offered.add(one);
        continue;
      }
      if (!isUnknownPlatform(platform)) collecting.offered.add(platform);
      const covering = wanted.filter((one) => coversPlatform(one, platform));
      if (covering.length === 0) continue;
      for (const one of covering) collecting.matched.add(one);
      merge(collecting, await this.#collectChild(child, [], depth));
    }
  }

  async #collectChild(
    { digest }: ChildDescriptor,
    platforms: readonly string[],
    depth: number,
  ): Promise<Collecting> {
    const manifest =
      depth < MAX_DEPTH
        ? await this.#content.readManifest(this.#key, digest)
        : undefined;
    return manifest === undefined
      ? {
          parts: new Map(),
          manifests: new Set(),
          missing: [digest],
          matched: new Set(),
          offered: new Set(),
        }
      : this.collect(manifest, platforms, depth + 1);
  }
}

function merge(into: Collecting, from: Collecting): void {
  for (const [digest, sizeBytes] of from.parts)
    into.parts.set(digest, sizeBytes);
  for (const digest of from.manifests) into.manifests.add(digest);
  into.missing.push(...from.missing);
}
