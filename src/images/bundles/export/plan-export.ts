import type { Digest } from "../../../oci/digest.ts";
import { RegistryError } from "../../../oci/errors.ts";
import { parseManifest } from "../../../oci/manifest.ts";
import { OCI_INDEX } from "../../../oci/media-type.ts";
import {
  parseTag,
  REFERRERS_TAG_SUFFIXES,
  referrersTag,
  type RepositoryKey,
} from "../../../oci/reference.ts";
import type { BlobRecords } from "../../../storage/blob-index.ts";
import type { HostedManifests } from "../../../storage/hosted-index.ts";
import type { StoredReferrers } from "../../../storage/list-index.ts";
import type { TagIndex } from "../../../storage/tag-index.ts";
import type { HostedImages } from "../../hosted-images.ts";
import { type ImageReference, imageText } from "../../image-reference.ts";
import type { ExportRequest } from "../bundle.ts";
import { type HeldBlobs, readBase } from "./export-base.ts";
import type { BundleImage } from "../bundle-index.ts";
import { collectImage, type CollectedImage } from "./collect-image.ts";
import {
  MAX_EXPORTED_IMAGES,
  type SelectedImage,
  selectImages,
  type SelectionParts,
} from "./select-images.ts";
import {
  StoredContent,
  type StoredContentParts,
  type StoredManifest,
} from "./stored-content.ts";

export interface PlanParts extends SelectionParts, StoredContentParts {
  readonly index: SelectionParts["index"] &
    StoredContentParts["index"] &
    Pick<BlobRecords, "getBlob"> &
    Pick<HostedManifests, "listHostedReferrers"> &
    Pick<StoredReferrers, "getReferrers"> &
    Pick<TagIndex, "getTag">;
  readonly hosted: Pick<HostedImages, "isHosted">;
  /** Default {@link MAX_BLOBS}. */
  readonly maxBlobs?: number;
  /** Of one image, each as often as it is named. Default: 200 000. */
  readonly maxNamedParts?: number;
}

/** The content of a bundle, which stays stored until the release. */
export interface ExportPlan {
  readonly images: readonly BundleImage[];
  /** Sizes of the blobs to write. */
  readonly blobs: ReadonlyMap<Digest, number>;
  /** Sizes of the blobs that the base has. */
  readonly omitted: ReadonlyMap<Digest, number>;
  release(): void;
}

/** Blobs of one bundle. */
const MAX_BLOBS = 150_000;
const REFERRERS_PER_QUERY = 100;
/** Failures and digests that an error names. */
const MAX_NAMED = 10;
const MAX_NAMED_DIGESTS = 3;

/**
 * Finds everything that a bundle is made of.
 *
 * @throws RegistryError that names every image that is not stored, or not completely
 */
export async function planExport(
  parts: PlanParts,
  request: ExportRequest,
  signal: AbortSignal,
): Promise<ExportPlan> {
  const planner = new ExportPlanner(parts, request, signal);
  try {
    await planner.run();
    return await planner.end();
  } catch (error) {
    planner.release();
    throw error;
  }
}

class ExportPlanner {
  readonly #parts: PlanParts;
  readonly #request: ExportRequest;
  readonly #signal: AbortSignal;
  readonly #content: StoredContent;
  readonly #images = new Map<string, BundleImage>();
  readonly #blobs = new Map<Digest, number>();
  /** The blobs that the images of each registry need. */
  readonly #needed = new Map<string, Set<Digest>>();
  readonly #failures: string[] = [];

  constructor(parts: PlanParts, request: ExportRequest, signal: AbortSignal) {
    this.#parts = parts;
    this.#request = request;
    this.#signal = signal;
    this.#content = new StoredContent(parts);
  }

  async run(): Promise<void> {
    const { images, failures } = await selectImages(this.#parts, this.#request);
    this.#failures.push(...failures);
    if (images.size === 0 && failures.length === 0) {
      this.#failures.push("the request names no image");
    }
    for (const selected of images.values()) await this.#add(selected, images);
    this.#refuseFailures();
  }

  async end(): Promise<ExportPlan> {
    const { since } = this.#request;
    const held = since && (await readBase(this.#parts, since, this.#needed));
    const blobs = new Map<Digest, number>();
    const omitted = new Map<Digest, number>();
    for (const [digest, sizeBytes] of this.#blobs) {
      const into = held && this.#isHeld(digest, held) ? omitted : blobs;
      into.set(digest, sizeBytes);
    }
    return {
      images: distinct([...this.#images.values()]),
      blobs,
      omitted,
      release: () => this.release(),
    };
  }

  /** Whether a reader of the earlier bundle may use the blob in every registry that needs it. */
  #isHeld(digest: Digest, held: HeldBlobs): boolean {
    for (const [registry, needed] of this.#needed) {
      if (!needed.has(digest)) continue;
      if (held.get(registry)?.has(digest) !== true) return false;
    }
    return true;
  }

  release(): void {
    this.#content.release();
  }

  /** Adds an image, and its referrers if they are wanted. */
  async #add(
    selected: SelectedImage,
    requested: ReadonlyMap<string, SelectedImage>,
  ): Promise<void> {
    const waiting = [selected];
    for (const next of waiting) {
      this.#signal.throwIfAborted();
      const name = imageText(next.image);
      if (this.#images.has(name)) continue;
      const digest = await this.#digestOf(next.image);
      const manifest =
        digest && (await this.#content.readManifest(next.image.key, digest));
      if (manifest === undefined) {
        this.#failures.push(await this.#explain(next.image, "is not stored"));
        continue;
      }
      const collected = await collectImage(
        this.#content,
        next.image.key,
        manifest,
        next.platforms,
        this.#parts.maxNamedParts,
      );
      const { absentPlatforms, offeredPlatforms } = collected;
      if (absentPlatforms.length > 0) {
        this.#failures.push(
          `${name} has no ${absentPlatforms.join(", ")}; it has ${offeredPlatforms.join(", ")}`,
        );
        continue;
      }
      const reason = incompleteness(collected);
      if (reason !== undefined) {
        this.#failures.push(await this.#explain(next.image, reason));
        continue;
      }
      const isReferrer =
        !requested.has(name) &&
        next.image.reference.kind === "digest" &&
        manifest.parsed?.subject !== undefined;
      this.#keep(name, isReferrer, manifest, collected);
      this.#need(next.image.key.upstream, collected);
      if (!this.#request.withReferrers) continue;
      const isTop = next === selected;
      waiting.push(
        ...(await this.#referrers(next.image, manifest, collected, isTop)),
      );
    }
  }

  #keep(
    name: string,
    isReferrer: boolean,
    { digest, mediaType, sizeBytes }: StoredManifest,
    { parts, manifests }: CollectedImage,
  ): void {
    const ref = isReferrer ? undefined : name;
    const image = { ref, digest, mediaType, sizeBytes, manifests };
    this.#images.set(name, image);
    for (const [part, size] of parts) this.#blobs.set(part, size);
    const { maxBlobs = MAX_BLOBS } = this.#parts;
    if (
      this.#blobs.size > maxBlobs ||
      this.#images.size > MAX_EXPORTED_IMAGES
    ) {
      throw new RegistryError("MANIFEST_INVALID", {
        status: 400,
        detail: `got more than ${maxBlobs} blobs or ${MAX_EXPORTED_IMAGES} images; expected fewer: export them in several bundles`,
      });
    }
  }

  #need(registry: string, { parts }: CollectedImage): void {
    const needed = this.#needed.get(registry) ?? new Set();
    this.#needed.set(registry, needed);
    for (const digest of parts.keys()) needed.add(digest);
  }

  async #digestOf({
    key,
    reference,
  }: ImageReference): Promise<Digest | undefined> {
    return reference.kind === "digest"
      ? reference.digest
      : (await this.#parts.index.getTag(key, reference.tag))?.digest;
  }

  /** Lists what refers to the image and to its manifests, by the referrers API and by cosign's tags. */
  async #referrers(
    image: ImageReference,
    manifest: StoredManifest,
    { manifests }: CollectedImage,
    isTop: boolean,
  ): Promise<SelectedImage[]> {
    const { key } = image;
    const isHosted = await this.#parts.hosted.isHosted(key.upstream);
    const found: ImageReference[] = [];
    for (const subject of [manifest.digest, ...manifests]) {
      const listed = isHosted
        ? await this.#hostedReferrers(key, subject)
        : await this.#mirroredReferrers(key, subject);
      if (listed === undefined && isTop && subject === manifest.digest) {
        this.#failures.push(
          `the referrers of ${imageText(image)} are not stored; run 'entrepot warm --with-referrers ${imageText(image)}'`,
        );
      }
      for (const digest of listed ?? []) {
        found.push({ key, reference: { kind: "digest", digest } });
      }
      for (const suffix of REFERRERS_TAG_SUFFIXES) {
        const tag = parseTag(`${referrersTag(subject)}${suffix}`);
        if (tag === undefined) continue;
        if ((await this.#parts.index.getTag(key, tag)) === undefined) continue;
        found.push({ key, reference: { kind: "tag", tag } });
      }
    }
    return found.map((one) => ({ image: one, platforms: [] }));
  }

  async #hostedReferrers(
    key: RepositoryKey,
    subject: Digest,
  ): Promise<readonly Digest[]> {
    const found: Digest[] = [];
    let last: Digest | undefined;
    do {
      const page = await this.#parts.index.listHostedReferrers(key, subject, {
        artifactTypes: [],
        limit: REFERRERS_PER_QUERY,
        last,
      });
      found.push(...page.map(({ digest }) => digest));
      last =
        page.length < REFERRERS_PER_QUERY ? undefined : page.at(-1)?.digest;
    } while (last !== undefined && found.length < MAX_EXPORTED_IMAGES);
    return found;
  }

  /** @returns undefined if the upstream's list is not stored */
  async #mirroredReferrers(
    key: RepositoryKey,
    subject: Digest,
  ): Promise<readonly Digest[] | undefined> {
    const row = await this.#parts.index.getReferrers(key, subject);
    const parsed = row && parseManifest(row.body, OCI_INDEX);
    return parsed?.ok === true
      ? parsed.children.map(({ digest }) => digest)
      : undefined;
  }

  async #explain(image: ImageReference, reason: string): Promise<string> {
    const name = imageText(image);
    const isHosted = await this.#parts.hosted.isHosted(image.key.upstream);
    return isHosted
      ? `${name} ${reason}`
      : `${name} ${reason}; run 'entrepot warm ${name}'`;
  }

  #refuseFailures(): void {
    const failures = this.#failures;
    if (failures.length === 0) return;
    const more = failures.length - MAX_NAMED;
    const named = failures.slice(0, MAX_NAMED).join("\n");
    throw new RegistryError("MANIFEST_UNKNOWN", {
      detail: `${named}${more > 0 ? `\nand ${more} more` : ""}`,
    });
  }
}

/** Drops referrers that are listed twice: of subjects in two repositories. */
function distinct(images: readonly BundleImage[]): readonly BundleImage[] {
  const referrers = new Set<Digest>();
  return images.filter(({ ref, digest }) => {
    if (ref !== undefined) return true;
    if (referrers.has(digest)) return false;
    referrers.add(digest);
    return true;
  });
}

/** Returns which parts of an image are not stored; undefined if none. */
function incompleteness({ missing }: CollectedImage): string | undefined {
  if (missing.length === 0) return undefined;
  const named = missing.slice(0, MAX_NAMED_DIGESTS).join(", ");
  const more = missing.length - MAX_NAMED_DIGESTS;
  return `is not complete: ${named}${more > 0 ? ` and ${more} more` : ""} not stored`;
}
