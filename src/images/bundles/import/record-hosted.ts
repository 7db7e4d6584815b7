import type { HostedConfig } from "../../../config/config.ts";
import type { ManifestWrites } from "../../../hosted/content/manifest-writes.ts";
import type {
  EventSink,
  HostedRepository,
  Sender,
} from "../../../hosted/hosted.ts";
import { immutableTags } from "../../../hosted/immutable-tags.ts";
import type { Digest } from "../../../oci/digest.ts";
import { RegistryError } from "../../../oci/errors.ts";
import type { Reference, RepositoryKey, Tag } from "../../../oci/reference.ts";
import type { BlobLinks } from "../../../storage/blob-index.ts";
import type { BlobStore } from "../../../storage/blob-store.ts";
import {
  type HostedBlobs,
  type HostedManifests,
  NOTHING_IMMUTABLE,
} from "../../../storage/hosted-index.ts";
import type { PinIndex } from "../../../storage/root-index.ts";
import type { TagIndex } from "../../../storage/tag-index.ts";
import type { Clock } from "../../../telemetry/clock.ts";
import { imageText } from "../../image-reference.ts";
import { findUntagged } from "../../untagged-manifest.ts";
import type { GraphManifest } from "./bundle-graph.ts";
import { refuseBundle } from "./bundle-refusal.ts";
import type { PlannedImage } from "./plan-import.ts";

export interface RecordHostedParts {
  readonly index: Pick<BlobLinks, "getLinkedBlob"> &
    Pick<HostedBlobs, "recordHostedBlob" | "unlinkHostedBlob"> &
    Pick<
      HostedManifests,
      "deleteHostedManifest" | "deleteHostedTag" | "listUntaggedManifests"
    > &
    Pick<PinIndex, "setPinned"> &
    Pick<TagIndex, "getTag">;
  readonly blobs: Pick<BlobStore, "read">;
  readonly putManifest: ManifestWrites["put"];
  readonly events: EventSink;
  /** Bytes of open uploads that count for the quota of a registry. */
  readonly reservedBytes: (registry: string) => number;
  readonly clock: Clock;
}

/** Records images in hosted repositories, by the writes of pushes. */
export class HostedRecords {
  readonly #parts: RecordHostedParts;
  readonly #findHosted: (registry: string) => HostedConfig | undefined;
  readonly #sender: Sender;
  /** What to undo, in the order of the changes. */
  readonly #undo: (() => Promise<unknown>)[] = [];
  /** Repositories in which a manifest stays, for example because a push tagged it meanwhile. */
  readonly #kept = new Set<string>();

  constructor(
    parts: RecordHostedParts,
    findHosted: (registry: string) => HostedConfig | undefined,
    sender: Sender,
  ) {
    this.#parts = parts;
    this.#findHosted = findHosted;
    this.#sender = sender;
  }

  /** @throws RegistryError if the image would move an immutable tag */
  async check({ key, reference, digest }: PlannedImage): Promise<void> {
    if (reference.kind !== "tag") return;
    const { config } = this.#repository({ key });
    const before = await this.#parts.index.getTag(key, reference.tag);
    if (before === undefined || before.digest === digest) return;
    if (!immutableTags({ key, config })(reference.tag)) return;
    throw new RegistryError("DENIED", {
      status: 409,
      detail: `${imageText({ key, reference })} is immutable, and has the digest ${before.digest}`,
    });
  }

  /**
   * Links the blobs of an image, then stores its manifests bottom-up, without its tag.
   *
   * @throws RegistryError over quota
   */
  async store(image: PlannedImage): Promise<void> {
    const { graph } = image;
    const repository = this.#repository(image);
    for (const [digest, sizeBytes] of graph.blobs) {
      await this.#linkBlob(repository, digest, sizeBytes);
    }
    for (const manifest of graph.manifests) {
      await this.#put(repository, manifest, undefined);
    }
  }

  /**
   * Points the tag of a stored image to it.
   *
   * @throws RegistryError for an immutable tag
   */
  async name(image: PlannedImage, isPinned: boolean): Promise<void> {
    const { key, reference, graph } = image;
    const root = graph.manifests.at(-1);
    if (reference.kind === "tag" && root !== undefined) {
      await this.#put(this.#repository(image), root, reference.tag);
    }
    if (isPinned && !image.isReferrer) await this.#pin(key, reference);
  }

  async #pin(key: RepositoryKey, reference: Reference): Promise<void> {
    const { index } = this.#parts;
    if (reference.kind === "tag") {
      const row = await index.getTag(key, reference.tag);
      if (row?.isPinned === true) return;
      this.#undo.push(() => index.setPinned(key, reference, false));
    }
    await index.setPinned(key, reference, true);
  }

  /** Removes what was added, as far as that is possible: a push may need it now. */
  async undo(): Promise<void> {
    for (const undo of this.#undo.toReversed()) {
      await undo().catch(() => undefined);
    }
  }

  #repository({ key }: Pick<PlannedImage, "key">): HostedRepository {
    const config = this.#findHosted(key.upstream);
    if (config !== undefined) return { key, config };
    throw refuseBundle(
      `${key.upstream} is not a hosted registry any longer; add it to the configuration`,
    );
  }

  async #linkBlob(
    { key, config }: HostedRepository,
    digest: Digest,
    sizeBytes: number,
  ): Promise<void> {
    const { index, clock, reservedBytes } = this.#parts;
    if ((await index.getLinkedBlob(key, digest)) === undefined) {
      this.#undo.push(async () => {
        // The collection drops a link that no manifest names.
        if (this.#kept.has(repositoryText(key))) return;
        await index.unlinkHostedBlob(key, digest, NOTHING_IMMUTABLE);
      });
    }
    const blob = { digest, sizeBytes, storedAtMs: clock.nowMs() };
    const outcome = await index.recordHostedBlob(key, blob, {
      maxBytes: config.quotaBytes,
      get reservedBytes() {
        return reservedBytes(key.upstream);
      },
    });
    if (outcome === "stored") return;
    throw new RegistryError("DENIED", {
      detail: `the quota of ${key.upstream} is used up`,
    });
  }

  async #put(
    repository: HostedRepository,
    { digest, sizeBytes, mediaType }: GraphManifest,
    tag: Tag | undefined,
  ): Promise<void> {
    const { index, blobs, putManifest, events } = this.#parts;
    const { key } = repository;
    const bytes = await blobs.read(digest, sizeBytes);
    if (bytes === undefined) {
      throw refuseBundle(`manifest ${digest} was removed from the storage`);
    }
    const row = await index.getLinkedBlob(key, digest);
    if (row?.mediaType === undefined) {
      this.#undo.push(async () => {
        const isDropped = await this.#dropManifest(key, digest).catch(
          () => false,
        );
        if (!isDropped) this.#kept.add(repositoryText(key));
      });
    }
    if (tag !== undefined) await this.#noteTag(repository, tag, digest);
    try {
      await putManifest(repository, {
        bytes,
        contentType: mediaType,
        reference: { kind: "digest", digest },
        tags: tag === undefined ? [] : [tag],
      });
    } catch (error) {
      throw explain(error, repositoryText(key));
    }
    events({
      action: "push",
      key,
      digest,
      tag,
      mediaType,
      sizeBytes,
      from: undefined,
      sender: this.#sender,
    });
  }

  /** @returns false if it has a tag by now */
  async #dropManifest(key: RepositoryKey, digest: Digest): Promise<boolean> {
    const { index } = this.#parts;
    const untagged = await findUntagged(index, key, digest);
    if (untagged === undefined) return false;
    const { kind } = await index.deleteHostedManifest(
      key,
      digest,
      () => true,
      untagged,
    );
    return kind === "deleted";
  }

  /** A tag that is new is removed again, and one that moves is moved back, unless a push moved it since. */
  async #noteTag(
    repository: HostedRepository,
    tag: Tag,
    digest: Digest,
  ): Promise<void> {
    const { index, blobs, putManifest } = this.#parts;
    const { key } = repository;
    const before = await index.getTag(key, tag);
    if (before?.digest === digest) return;
    this.#undo.push(async () => {
      if ((await index.getTag(key, tag))?.digest !== digest) return;
      if (before === undefined) {
        await index.deleteHostedTag(key, tag, NOTHING_IMMUTABLE);
        return;
      }
      const bytes = await blobs.read(before.digest, before.sizeBytes);
      if (bytes === undefined) return;
      await putManifest(repository, {
        bytes,
        contentType: before.mediaType,
        reference: { kind: "digest", digest: before.digest },
        tags: [tag],
      });
    });
  }
}

function repositoryText({ upstream, repository }: RepositoryKey): string {
  return `${upstream}/${repository}`;
}

/** Adds the repository to an error for the operator. */
function explain(error: unknown, repository: string): unknown {
  if (!(error instanceof RegistryError)) return error;
  const { code, status, message, cause, detail } = error;
  return new RegistryError(code, {
    status,
    message,
    detail: `${repository}: ${detail ?? message}`,
    cause,
  });
}
