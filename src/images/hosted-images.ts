import type { Collection } from "../hosted/collection.ts";
import type { EventSink, Sender } from "../hosted/hosted.ts";
import { immutableTags } from "../hosted/immutable-tags.ts";
import type { Digest } from "../oci/digest.ts";
import { RegistryError } from "../oci/errors.ts";
import type { RepositoryKey, Tag } from "../oci/reference.ts";
import type { Referrer } from "../oci/referrers.ts";
import type { Routes } from "../routing/routes.ts";
import type { BlobLinks } from "../storage/blob-index.ts";
import type { ImageGraph } from "../storage/graph-index.ts";
import type {
  HostedDeletion,
  HostedManifests,
  ImmutableTags,
} from "../storage/hosted-index.ts";
import type { IndexCursor } from "../storage/index-cursor.ts";
import type { TagIndex } from "../storage/tag-index.ts";
import type { ImageReference } from "./image-reference.ts";
import { tagText } from "./tag-image.ts";
import { findUntagged } from "./untagged-manifest.ts";

type HostedImagesIndex = Pick<BlobLinks, "getLinkedBlob"> &
  Pick<
    HostedManifests,
    | "deleteHostedManifest"
    | "deleteHostedTag"
    | "listHostedReferrers"
    | "listHostedRegistries"
    | "listUntaggedManifests"
  > &
  Pick<ImageGraph, "listChildren"> &
  Pick<TagIndex, "getTag">;

export interface HostedImagesParts {
  readonly index: HostedImagesIndex;
  /** Undefined: the registry is not configured, or not hosted. */
  readonly routes: Pick<Routes, "findHosted" | "findUpstream">;
  readonly garbage: Pick<Collection, "reclaim">;
  readonly events: EventSink;
}

/** Referrers of one manifest that are examined and listed. */
const MAX_REFERRERS = 1_000;
const REFERRERS_PER_QUERY = 100;
/** Manifests that one removal examines. */
const MAX_REMOVED = 10_000;

/** Deletes images of hosted repositories on an operator's order; each deletion is durable. */
export class HostedImages {
  readonly #parts: HostedImagesParts;

  constructor(parts: HostedImagesParts) {
    this.#parts = parts;
  }

  /** Returns whether a registry is hosted. True also for one with content that is not configured any longer. */
  async isHosted(registry: string): Promise<boolean> {
    const { routes, index } = this.#parts;
    if (routes.findHosted(registry) !== undefined) return true;
    if (routes.findUpstream(registry) !== undefined) return false;
    const all = await index.listHostedRegistries();
    return all.some((one) => one.registry === registry);
  }

  /**
   * Removes a tag; its manifest stays.
   *
   * @returns the digest that the tag had; undefined if there is no such tag
   * @throws RegistryError DENIED if the tag is immutable
   */
  async untag(
    key: RepositoryKey,
    tag: Tag,
    sender: Sender,
  ): Promise<Digest | undefined> {
    const { index } = this.#parts;
    const before = await index.getTag(key, tag);
    if (before === undefined) return undefined;
    const outcome = await index.deleteHostedTag(key, tag, this.#immutable(key));
    if (!isDeleted(key, outcome)) return undefined;
    const { digest } = before;
    this.#report(key, { digest, tag }, sender);
    return digest;
  }

  /**
   * Removes an image. A tag is removed with the manifest that it points to, unless another tag or
   * manifest of the repository names it; a digest is removed with every tag that points to it. The manifests of its
   * platforms and its referrers are removed too, unless something else in the repository names them.
   *
   * @returns the bytes freed; undefined if there is no such image
   * @throws RegistryError DENIED if a tag is immutable; nothing has changed then
   */
  async remove(
    image: ImageReference,
    sender: Sender,
  ): Promise<number | undefined> {
    if (!(await this.#delete(image, sender))) return undefined;
    // The background collection would do this within a minute.
    return (await this.#parts.garbage.reclaim()).bytes;
  }

  async #delete(
    { key, reference }: ImageReference,
    sender: Sender,
  ): Promise<boolean> {
    const { index } = this.#parts;
    if (reference.kind === "tag") {
      const digest = await this.untag(key, reference.tag, sender);
      if (digest === undefined) return false;
      await this.#removeUnneeded(key, [digest], sender);
      return true;
    }
    const { digest } = reference;
    const row = await index.getLinkedBlob(key, digest);
    if (row?.mediaType === undefined) return false;
    const needed = await this.#listNeeded(key, digest);
    const outcome = await index.deleteHostedManifest(
      key,
      digest,
      this.#immutable(key),
    );
    if (!isDeleted(key, outcome)) return false;
    this.#report(key, { digest, tag: undefined }, sender);
    await this.#removeUnneeded(key, needed, sender);
    return true;
  }

  /** Lists manifests of the repository whose subject is this digest, some hundred at most. */
  async listReferrers(
    key: RepositoryKey,
    subject: Digest,
  ): Promise<readonly Referrer[]> {
    const found: Referrer[] = [];
    let last: Digest | undefined;
    while (found.length < MAX_REFERRERS) {
      const page = await this.#parts.index.listHostedReferrers(key, subject, {
        artifactTypes: [],
        limit: REFERRERS_PER_QUERY,
        last,
      });
      found.push(...page);
      last = page.at(-1)?.digest;
      if (page.length < REFERRERS_PER_QUERY) break;
    }
    return found;
  }

  /** Removes those manifests that nothing in the repository names, then the manifests that only they named. */
  async #removeUnneeded(
    key: RepositoryKey,
    candidates: readonly Digest[],
    sender: Sender,
  ): Promise<void> {
    const waiting = [...candidates];
    const seen = new Set<Digest>();
    for (const digest of waiting) {
      if (seen.has(digest) || seen.size >= MAX_REMOVED) continue;
      seen.add(digest);
      const untagged = await findUntagged(this.#parts.index, key, digest);
      if (untagged === undefined) continue;
      const needed = await this.#listNeeded(key, digest);
      const outcome = await this.#parts.index.deleteHostedManifest(
        key,
        digest,
        () => true,
        untagged,
      );
      if (outcome.kind !== "deleted") continue;
      this.#report(key, { digest, tag: undefined }, sender);
      waiting.push(...needed);
    }
  }

  /** Lists the manifests that only this one may need: its children and its referrers. */
  async #listNeeded(key: RepositoryKey, digest: Digest): Promise<Digest[]> {
    const needed: Digest[] = [];
    let after: IndexCursor | undefined;
    do {
      const page = await this.#parts.index.listChildren(digest, after);
      for (const { digest: child, isManifest } of page.nodes) {
        if (isManifest) needed.push(child);
      }
      after = page.next;
    } while (after !== undefined && needed.length < MAX_REMOVED);
    const referrers = await this.listReferrers(key, digest);
    return [...needed, ...referrers.map((referrer) => referrer.digest)];
  }

  #immutable(key: RepositoryKey): ImmutableTags {
    const config = this.#parts.routes.findHosted(key.upstream);
    return config === undefined ? () => false : immutableTags({ key, config });
  }

  #report(
    key: RepositoryKey,
    target: { readonly digest: Digest; readonly tag: Tag | undefined },
    sender: Sender,
  ): void {
    this.#parts.events({
      action: "delete",
      key,
      ...target,
      mediaType: undefined,
      sizeBytes: undefined,
      from: undefined,
      sender,
    });
  }
}

/** @throws RegistryError DENIED if a tag is immutable */
function isDeleted(key: RepositoryKey, outcome: HostedDeletion): boolean {
  if (outcome.kind === "immutable") {
    const { tag } = outcome;
    throw new RegistryError("DENIED", {
      status: 409,
      detail: `${tagText({ key, tag })} is immutable`,
    });
  }
  return outcome.kind === "deleted";
}
