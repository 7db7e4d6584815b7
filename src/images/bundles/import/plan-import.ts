import type { Digest } from "../../../oci/digest.ts";
import type { ImportOptions } from "../bundle.ts";
import type { BundleGraph, ImageGraph } from "./bundle-graph.ts";
import type { BundleEntry, BundleIndex } from "./bundle-index.ts";
import {
  isNamed,
  type NamedImage,
  nameImages,
  type NameRoutes,
} from "./image-names.ts";

/** An image, or a referrer of one, in one repository. */
export interface PlannedImage extends Pick<NamedImage, "key" | "reference"> {
  readonly digest: Digest;
  readonly graph: ImageGraph;
  /** True: it has no name of its own, and is stored because an image is its subject. */
  readonly isReferrer: boolean;
}

/**
 * Decides what to record of a bundle: each named image in its repository, and in the same one the
 * manifests whose subject it is.
 *
 * @returns images before their referrers
 * @throws RegistryError if an image has no name, or parts of one are missing; nothing has changed
 */
export async function planImport(
  index: BundleIndex,
  graph: BundleGraph,
  options: Pick<ImportOptions, "into" | "name">,
  routes: NameRoutes,
): Promise<readonly PlannedImage[]> {
  const { own, referrers } = await sortEntries(index, graph);
  const planned: PlannedImage[] = [];
  for (const image of nameImages(own, options, routes)) {
    const { key, reference, entry } = image;
    const { digest } = entry;
    const parts = await graph.collect(entry, key.upstream);
    planned.push({ key, reference, digest, graph: parts, isReferrer: false });
    planned.push(...(await planReferrers(image, parts, graph, referrers)));
  }
  return planned;
}

interface SortedEntries {
  /** Entries that get a name. */
  readonly own: readonly BundleEntry[];
  /** Entries without a name, by their subjects. */
  readonly referrers: ReadonlyMap<Digest, readonly BundleEntry[]>;
}

async function sortEntries(
  { entries }: BundleIndex,
  graph: BundleGraph,
): Promise<SortedEntries> {
  const present = new Set(entries.map(({ digest }) => digest));
  const children = new Set<Digest>();
  const subjects = new Map<BundleEntry, Digest>();
  for (const entry of entries) {
    const { digest, mediaType } = entry;
    const manifest = await graph.readManifest(digest, mediaType);
    for (const child of manifest?.children ?? []) {
      children.add(child.digest);
      // A signature may be of one platform, which is listed in its index only.
      present.add(child.digest);
    }
    if (manifest?.subject !== undefined) subjects.set(entry, manifest.subject);
  }
  const referrers = new Map<Digest, BundleEntry[]>();
  const own: BundleEntry[] = [];
  const isListed = new Set<Digest>();
  for (const entry of entries) {
    const subject = subjects.get(entry);
    if (isNamed(entry)) own.push(entry);
    else if (subject !== undefined && present.has(subject)) {
      const others = referrers.get(subject);
      if (others === undefined) referrers.set(subject, [entry]);
      else others.push(entry);
    } else if (!children.has(entry.digest) && !isListed.has(entry.digest)) {
      own.push(entry);
    } else continue;
    isListed.add(entry.digest);
  }
  // An entry without a name may repeat one that has a name.
  const named = new Set(own.filter(isNamed).map(({ digest }) => digest));
  return {
    own: own.filter((entry) => isNamed(entry) || !named.has(entry.digest)),
    referrers,
  };
}

/** Collects the manifests whose subject is a part of an image, and theirs in turn. */
async function planReferrers(
  { key }: NamedImage,
  parts: ImageGraph,
  graph: BundleGraph,
  referrers: SortedEntries["referrers"],
): Promise<PlannedImage[]> {
  const planned: PlannedImage[] = [];
  const seen = new Set<Digest>();
  const waiting = parts.manifests.map(({ digest }) => digest);
  for (const subject of waiting) {
    for (const entry of referrers.get(subject) ?? []) {
      const { digest } = entry;
      if (seen.has(digest)) continue;
      seen.add(digest);
      const own = await graph.collect(entry, key.upstream);
      const reference = { kind: "digest", digest } as const;
      planned.push({ key, reference, digest, graph: own, isReferrer: true });
      waiting.push(...own.manifests.map((manifest) => manifest.digest));
    }
  }
  return planned;
}
