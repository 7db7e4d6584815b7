import type { HostedConfig } from "../config/config.ts";
import type { ManifestWrites } from "../hosted/content/manifest-writes.ts";
import type { EventSink, HostedRepository, Sender } from "../hosted/hosted.ts";
import type { Digest } from "../oci/digest.ts";
import { RegistryError } from "../oci/errors.ts";
import { parseManifest } from "../oci/manifest.ts";
import type { RepositoryKey, Tag } from "../oci/reference.ts";
import type { BlobLinks, BlobRow } from "../storage/blob-index.ts";
import type { BlobStore } from "../storage/blob-store.ts";
import type { HostedBlobs, HostedManifests } from "../storage/hosted-index.ts";
import type { TagIndex } from "../storage/tag-index.ts";
import type { Clock } from "../telemetry/clock.ts";
import { type ImageReference, imageText } from "./image-reference.ts";
import { findUntagged } from "./untagged-manifest.ts";

type TagImageIndex = Pick<BlobLinks, "getLinkedBlob"> &
  Pick<HostedBlobs, "listBlobRepositories" | "mountHostedBlob"> &
  Pick<HostedManifests, "deleteHostedManifest" | "listUntaggedManifests"> &
  Pick<TagIndex, "getTag">;

/** A tag of a hosted repository. */
export interface TagTarget {
  readonly key: RepositoryKey;
  readonly tag: Tag;
}

/** Formats a tag as {@link imageText} formats an image. */
export function tagText({ key, tag }: TagTarget): string {
  return imageText({ key, reference: { kind: "tag", tag } });
}

export interface TagImageParts {
  readonly index: TagImageIndex;
  readonly blobs: Pick<BlobStore, "read">;
  readonly putManifest: ManifestWrites["put"];
  readonly events: EventSink;
  /** Undefined: the registry is not hosted. */
  readonly findHosted: (registry: string) => HostedConfig | undefined;
  /** Whether blobs that another repository of the upstream has need no proof of their own. */
  readonly sharesBlobs: (registry: string) => boolean;
  /** Bytes of open uploads that count for the quota of a registry. */
  readonly reservedBytes: (registry: string) => number;
  readonly clock: Clock;
  /** Default {@link MAX_PARTS}. */
  readonly maxParts?: number;
}

/** Manifests and blobs of one image. */
const MAX_PARTS = 100_000;
/** Repositories that are searched for a blob that the source itself does not link. */
const MAX_CANDIDATES = 100;
/** Missing digests that an error names. */
const MAX_NAMED = 3;

/**
 * Gives a stored image, mirrored or hosted, a tag in a hosted repository. Its blobs are mounted, not
 * copied; its manifests are stored bottom-up, and the tag with the last one. If that fails, the
 * manifests that it stored are deleted again.
 *
 * @returns the digest of the image
 * @throws RegistryError if parts of the image are not stored, or the repository refuses it: nothing
 *   has changed then
 */
export async function tagImage(
  parts: TagImageParts,
  source: ImageReference,
  target: TagTarget,
  sender: Sender,
): Promise<Digest> {
  const config = parts.findHosted(target.key.upstream);
  if (config === undefined) {
    throw new RegistryError("UNSUPPORTED", {
      status: 400,
      detail: `got the target registry ${target.key.upstream}; expected a hosted one`,
    });
  }
  const copy = new ImageCopy(parts, source, { key: target.key, config });
  const digest = await copy.plan();
  await copy.run(target.tag, sender);
  return digest;
}

interface PlannedManifest {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly mediaType: string;
}

class ImageCopy {
  readonly #parts: TagImageParts;
  readonly #source: ImageReference;
  readonly #target: HostedRepository;
  /** The manifests to store, children before their parents. */
  readonly #manifests: PlannedManifest[] = [];
  /** The repository that each blob is mounted from. */
  readonly #blobs = new Map<Digest, RepositoryKey>();

  constructor(
    parts: TagImageParts,
    source: ImageReference,
    target: HostedRepository,
  ) {
    this.#parts = parts;
    this.#source = source;
    this.#target = target;
  }

  /** Finds every part of the image, and changes nothing. @throws RegistryError */
  async plan(): Promise<Digest> {
    const { key, reference } = this.#source;
    const { index } = this.#parts;
    const digest =
      reference.kind === "digest"
        ? reference.digest
        : (await index.getTag(key, reference.tag))?.digest;
    const row = digest && (await index.getLinkedBlob(key, digest));
    if (digest === undefined || row?.mediaType === undefined) {
      throw new RegistryError("MANIFEST_UNKNOWN", {
        detail: `${imageText(this.#source)} is not stored${this.#isMirrored() ? "; pull it through this server first" : ""}`,
      });
    }
    const missing = await this.#collect(digest);
    if (missing.size > 0) throw this.#incomplete([...missing]);
    return digest;
  }

  /** @returns the digests that are not stored */
  async #collect(root: Digest): Promise<ReadonlySet<Digest>> {
    const missing = new Set<Digest>();
    const seen = new Set<Digest>();
    // A manifest is on the stack twice: to be read, and after its children to be planned.
    const stack: (Digest | PlannedManifest)[] = [root];
    for (;;) {
      const next = stack.pop();
      if (next === undefined) return missing;
      if (typeof next !== "string") {
        this.#manifests.push(next);
        continue;
      }
      if (seen.has(next)) continue;
      seen.add(next);
      const { maxParts = MAX_PARTS } = this.#parts;
      if (seen.size + this.#blobs.size + missing.size > maxParts) {
        throw new RegistryError("MANIFEST_INVALID", {
          status: 400,
          detail: `got an image with more than ${maxParts} manifests and blobs; expected fewer`,
        });
      }
      const row = await this.#parts.index.getLinkedBlob(this.#source.key, next);
      const bytes =
        row?.mediaType === undefined ? undefined : await this.#read(row);
      if (row?.mediaType === undefined || bytes === undefined) {
        missing.add(next);
        continue;
      }
      const { digest, sizeBytes, mediaType } = row;
      stack.push({ digest, sizeBytes, mediaType });
      const parsed = parseManifest(bytes, mediaType);
      if (!parsed.ok) continue;
      for (const child of parsed.children) {
        if (child.role === "manifest") stack.push(child.digest);
        else if (!child.isForeign) await this.#findBlob(child.digest, missing);
      }
    }
  }

  async #findBlob(digest: Digest, missing: Set<Digest>): Promise<void> {
    if (this.#blobs.has(digest) || missing.has(digest)) return;
    const { index, sharesBlobs } = this.#parts;
    const { key } = this.#source;
    const candidates = [key];
    if ((await index.getLinkedBlob(key, digest)) === undefined) {
      candidates.pop();
      if (sharesBlobs(key.upstream)) {
        const others = await index.listBlobRepositories(
          digest,
          MAX_CANDIDATES,
          undefined,
        );
        candidates.push(
          ...others.filter(({ upstream }) => upstream === key.upstream),
        );
      }
    }
    const [from] = candidates;
    if (from === undefined) missing.add(digest);
    else this.#blobs.set(digest, from);
  }

  #read({ digest, sizeBytes }: PlannedManifest | BlobRow) {
    return this.#parts.blobs.read(digest, sizeBytes);
  }

  /** @throws RegistryError */
  async run(tag: Tag, sender: Sender): Promise<void> {
    const stored: Digest[] = [];
    try {
      for (const [digest, from] of this.#blobs) await this.#mount(digest, from);
      for (const manifest of this.#manifests) {
        const isNew = !(await this.#isInTarget(manifest.digest));
        const isRoot = manifest === this.#manifests.at(-1);
        await this.#put(manifest, isRoot ? [tag] : [], sender);
        if (isNew) stored.push(manifest.digest);
      }
    } catch (error) {
      await this.#undo(stored);
      throw error;
    }
  }

  async #mount(digest: Digest, from: RepositoryKey): Promise<void> {
    const { index, clock, reservedBytes } = this.#parts;
    const { key, config } = this.#target;
    const outcome = await index.mountHostedBlob(
      key,
      digest,
      from,
      clock.nowMs(),
      {
        maxBytes: config.quotaBytes,
        reservedBytes: reservedBytes(key.upstream),
      },
    );
    if (outcome === "absent") throw this.#incomplete([digest]);
    if (outcome === "over-quota") {
      throw new RegistryError("DENIED", {
        detail: `the quota of ${key.upstream} is used up`,
      });
    }
  }

  async #put(
    manifest: PlannedManifest,
    tags: readonly Tag[],
    sender: Sender,
  ): Promise<void> {
    const { digest, mediaType } = manifest;
    const bytes = await this.#read(manifest);
    if (bytes === undefined) throw this.#incomplete([digest]);
    try {
      await this.#parts.putManifest(this.#target, {
        bytes,
        contentType: mediaType,
        reference: { kind: "digest", digest },
        tags,
      });
    } catch (error) {
      if (!(error instanceof RegistryError)) throw error;
      const { code, status, message, cause } = error;
      const { upstream, repository } = this.#target.key;
      const detail = `${upstream}/${repository}: ${message}`;
      throw new RegistryError(code, { status, detail, cause });
    }
    this.#parts.events({
      action: "push",
      key: this.#target.key,
      digest,
      tag: tags[0],
      mediaType,
      sizeBytes: manifest.sizeBytes,
      from: undefined,
      sender,
    });
  }

  async #isInTarget(digest: Digest): Promise<boolean> {
    const row = await this.#parts.index.getLinkedBlob(this.#target.key, digest);
    return row?.mediaType !== undefined;
  }

  /**
   * Deletes stored manifests, parents first, unless a push has named them since. Those that cannot be
   * deleted stay without a tag.
   */
  async #undo(stored: readonly Digest[]): Promise<void> {
    const { key } = this.#target;
    const { index } = this.#parts;
    for (const digest of stored.toReversed()) {
      try {
        const untagged = await findUntagged(index, key, digest);
        if (untagged === undefined) continue;
        await index.deleteHostedManifest(key, digest, () => true, untagged);
      } catch {
        continue;
      }
    }
  }

  #isMirrored(): boolean {
    const { upstream } = this.#source.key;
    return this.#parts.findHosted(upstream) === undefined;
  }

  #incomplete(missing: readonly Digest[]): RegistryError {
    const named = missing.slice(0, MAX_NAMED).join(", ");
    const more = missing.length - MAX_NAMED;
    return new RegistryError("MANIFEST_BLOB_UNKNOWN", {
      status: 404,
      detail:
        `${imageText(this.#source)} is not complete: ${named}${more > 0 ? ` and ${more} more` : ""} ` +
        `not stored${this.#isMirrored() ? "; pull every platform through this server first, or name one platform by its digest" : ""}`,
    });
  }
}
