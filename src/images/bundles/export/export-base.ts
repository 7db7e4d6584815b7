import type { Digest } from "../../../oci/digest.ts";
import { type ParsedManifest, parseManifest } from "../../../oci/manifest.ts";
import { Pace } from "../../../retention/victim-search.ts";
import type { BlobRecords } from "../../../storage/blob-index.ts";
import type { BlobStore } from "../../../storage/blob-store.ts";
import type { BaseContent, BaseManifest, BundleBase } from "../bundle.ts";

interface BaseParts {
  readonly index: Pick<BlobRecords, "getBlob">;
  readonly blobs: Pick<BlobStore, "read">;
}

/** The blobs of an earlier bundle, by the registries whose images have them. */
export type HeldBlobs = ReadonlyMap<string, ReadonlySet<Digest>>;

/**
 * Finds the blobs that a reader of an earlier bundle has for each registry: an image of another registry
 * may not use them. A manifest whose bytes are neither given nor stored names none: its blobs are written
 * again.
 *
 * @param registries others are not needed
 * @throws IndexError, StorageError
 */
export async function readBase(
  parts: BaseParts,
  base: BundleBase,
  registries: Pick<ReadonlySet<string>, "has">,
): Promise<HeldBlobs> {
  const pace = new Pace();
  const held = new Map<string, Set<Digest>>();
  const referrers = new Map<Digest, Referrer[]>();
  const add = (registry: string, digest: Digest, content?: BaseContent) => {
    const blobs = held.get(registry) ?? new Set();
    held.set(registry, blobs.add(digest));
    for (const blob of content?.blobs ?? []) blobs.add(blob);
  };
  for (const { digest, registry, content } of base.manifests) {
    await pace.step();
    if (registry !== undefined && !registries.has(registry)) continue;
    const read = content ?? (await readContent(parts, digest));
    if (registry !== undefined) add(registry, digest, read);
    else if (read?.subject !== undefined) {
      const others = referrers.get(read.subject) ?? [];
      referrers.set(read.subject, others);
      others.push({ digest, content: read });
    }
  }
  for (const [registry, blobs] of held) {
    // A referrer may be the subject of another one: the loop reaches what is added meanwhile.
    for (const subject of blobs) {
      await pace.step();
      for (const { digest, content } of referrers.get(subject) ?? []) {
        add(registry, digest, content);
      }
    }
  }
  return held;
}

interface Referrer {
  readonly digest: Digest;
  readonly content: BaseContent;
}

/** Returns what a manifest says for {@link BaseManifest.content}. */
export function baseContent({
  children,
  subject,
}: Pick<ParsedManifest, "children" | "subject">): BaseContent {
  return {
    blobs: children
      .filter(({ role, isForeign }) => role === "blob" && !isForeign)
      .map(({ digest }) => digest),
    subject,
  };
}

async function readContent(
  { index, blobs }: BaseParts,
  digest: BaseManifest["digest"],
): Promise<BaseContent | undefined> {
  const row = await index.getBlob(digest);
  if (row?.mediaType === undefined) return undefined;
  const bytes = await blobs.read(digest, row.sizeBytes);
  const parsed = bytes && parseManifest(bytes, row.mediaType);
  return parsed?.ok === true ? baseContent(parsed) : undefined;
}
