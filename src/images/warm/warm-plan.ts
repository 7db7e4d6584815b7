import type { Mirror } from "../../mirror/mirror.ts";
import type { Digest } from "../../oci/digest.ts";
import { parseManifest } from "../../oci/manifest.ts";
import {
  type Reference,
  referenceText,
  type RepositoryKey,
} from "../../oci/reference.ts";
import type { BlobLinks } from "../../storage/blob-index.ts";
import type { TagIndex } from "../../storage/tag-index.ts";
import { chooseChildren } from "../ensure-image.ts";
import { imageText } from "../image-reference.ts";
import { type JobError, MAX_JOB_ERRORS } from "../jobs/job.ts";
import { unlessAborted } from "../unless-aborted.ts";
import { failureText, registryErrorOf } from "./failure-text.ts";
import { UpstreamQueues } from "./upstream-queues.ts";
import { signatureTags } from "./warm-image.ts";
import type { WarmRequest } from "./warm-request.ts";
import {
  type TagsTarget,
  type TargetParts,
  type WarmTarget,
  WarmTargets,
} from "./warm-targets.ts";

/** Images that a plan lists; it counts all. */
const MAX_LISTED = 10_000;
/** Digests that are remembered, so that a blob of several images counts once. */
const MAX_COUNTED = 200_000;
/** Manifests of one image that are examined. */
const MAX_MANIFESTS = 1_000;

interface Counts {
  /** Manifests and blobs that are not stored, and the bytes of these blobs. */
  readonly manifests: number;
  readonly blobs: number;
  readonly bytes: number;
  /** Requests for manifests that the upstream counts. */
  readonly pulls: number;
  /**
   * True if a manifest was not read, because the upstream counts pulls: what it names is missing in
   * these counts.
   */
  readonly isPartial: boolean;
}

/** An image that is not completely stored. */
export interface PlannedImage extends Counts {
  readonly ref: string;
}

export interface PlannedUpstream extends Counts {
  readonly name: string;
  readonly images: number;
  /** Images of which nothing is missing. */
  readonly present: number;
  /** The pull budget that is left; null if the upstream states none. */
  readonly pullsLeft: number | null;
}

/** What a job would fetch. */
export interface WarmPlan {
  readonly images: readonly PlannedImage[];
  readonly upstreams: readonly PlannedUpstream[];
  readonly errors: readonly JobError[];
  readonly errorCount: number;
  /** What the lists say and this server does not apply. */
  readonly notes: readonly JobError[];
}

export interface PlanParts extends TargetParts {
  readonly mirror: TargetParts["mirror"] &
    Pick<
      Mirror,
      "headManifest" | "listReferrers" | "peekManifest" | "pullBudget"
    >;
  readonly index: Pick<BlobLinks, "getLinkedBlob" | "getUpstreamBlob"> &
    Pick<TagIndex, "getTag">;
}

/**
 * Finds what a job would fetch, and stores nothing: tags by HEADs, and manifests that are not stored
 * only from upstreams that state no pull budget.
 *
 * @throws the signal's reason
 */
export async function planWarm(
  parts: PlanParts,
  request: WarmRequest,
  signal: AbortSignal,
): Promise<WarmPlan> {
  return new Plan(parts, request, signal).make();
}

type Item =
  | { readonly kind: "tags"; readonly target: TagsTarget }
  | { readonly kind: "image"; readonly target: WarmTarget };

class Plan {
  readonly #parts: PlanParts;
  readonly #request: WarmRequest;
  readonly #signal: AbortSignal;
  readonly #targets: WarmTargets;
  readonly #counted = new Set<string>();
  readonly #images: PlannedImage[] = [];
  readonly #upstreams = new Map<string, PlannedUpstream>();
  readonly #errors: JobError[] = [];
  readonly #notes: JobError[] = [];
  #errorCount = 0;

  constructor(parts: PlanParts, request: WarmRequest, signal: AbortSignal) {
    this.#parts = parts;
    this.#request = request;
    this.#signal = signal;
    this.#targets = new WarmTargets(parts, request, {
      fail: (ref, message) => this.#fail(ref, message),
      note: (ref, message) => {
        if (this.#notes.length >= MAX_JOB_ERRORS) return;
        this.#notes.push({ ref, message });
      },
    });
  }

  async make(): Promise<WarmPlan> {
    const { tags, images } = await this.#targets.read(this.#signal);
    const queues = new UpstreamQueues<Item>(
      this.#request.concurrency,
      async (item) => {
        this.#signal.throwIfAborted();
        if (item.kind === "image") await this.#examine(item.target);
        else await this.#expand(item.target, queues);
      },
    );
    for (const target of tags) {
      queues.add(target.key.upstream, { kind: "tags", target });
    }
    for (const target of images) {
      queues.add(target.image.key.upstream, { kind: "image", target });
    }
    await queues.drain();
    return {
      images: this.#images.toSorted((one, other) =>
        one.ref < other.ref ? -1 : 1,
      ),
      upstreams: [...this.#upstreams.values()],
      errors: this.#errors,
      errorCount: this.#errorCount,
      notes: this.#notes,
    };
  }

  async #expand(
    target: TagsTarget,
    queues: UpstreamQueues<Item>,
  ): Promise<void> {
    const { entry, key } = target;
    try {
      for (const image of await this.#targets.expand(target, this.#signal)) {
        queues.add(key.upstream, { kind: "image", target: image });
      }
    } catch (error) {
      this.#signal.throwIfAborted();
      this.#fail(
        `${entry.origin}: ${key.upstream}/${key.repository}`,
        `the tags could not be listed: ${failureText(error)}`,
      );
    }
  }

  async #examine({ image, platforms }: WarmTarget): Promise<void> {
    const { key } = image;
    const walk = new ImageWalk({
      ...this.#parts,
      key,
      signal: this.#signal,
      isCounted: (digest) => this.#isCounted(`${key.upstream} ${digest}`),
    });
    try {
      const digest = await walk.examine(
        image.reference,
        platforms.length === 0 ? "all" : platforms,
      );
      if (this.#request.withReferrers && digest !== undefined) {
        await walk.examineReferrers(digest);
      }
    } catch (error) {
      this.#signal.throwIfAborted();
      this.#fail(imageText(image), failureText(error));
    }
    this.#add({ ref: imageText(image), ...walk.counts }, key.upstream);
  }

  #add(image: PlannedImage, name: string): void {
    const { remaining } = this.#parts.mirror.pullBudget(name);
    const known = this.#upstreams.get(name);
    const isPresent = image.manifests + image.blobs === 0 && !image.isPartial;
    this.#upstreams.set(name, {
      name,
      images: (known?.images ?? 0) + 1,
      present: (known?.present ?? 0) + (isPresent ? 1 : 0),
      manifests: (known?.manifests ?? 0) + image.manifests,
      blobs: (known?.blobs ?? 0) + image.blobs,
      bytes: (known?.bytes ?? 0) + image.bytes,
      pulls: (known?.pulls ?? 0) + image.pulls,
      isPartial: known?.isPartial === true || image.isPartial,
      pullsLeft: remaining ?? null,
    });
    if (!isPresent && this.#images.length < MAX_LISTED) {
      this.#images.push(image);
    }
  }

  /** Whether the digest was counted before; counts it. */
  #isCounted(name: string): boolean {
    if (this.#counted.has(name)) return true;
    if (this.#counted.size < MAX_COUNTED) this.#counted.add(name);
    return false;
  }

  #fail(ref: string, message: string): void {
    this.#errorCount += 1;
    if (this.#errors.length < MAX_JOB_ERRORS) {
      this.#errors.push({ ref, message });
    }
  }
}

interface WalkParts extends PlanParts {
  readonly key: RepositoryKey;
  readonly signal: AbortSignal;
  /** Returns whether a digest of the upstream was counted before; counts it. */
  readonly isCounted: (name: string) => boolean;
}

/** Counts what is missing of one image. */
class ImageWalk {
  readonly #parts: WalkParts;
  readonly #seen = new Set<string>();
  #counts: Counts = {
    manifests: 0,
    blobs: 0,
    bytes: 0,
    pulls: 0,
    isPartial: false,
  };

  constructor(parts: WalkParts) {
    this.#parts = parts;
  }

  get counts(): Counts {
    return this.#counts;
  }

  /** @returns the digest of the manifest, if it is known */
  async examine(
    reference: Reference,
    platforms: "all" | readonly string[],
  ): Promise<Digest | undefined> {
    const top = await this.#resolve(reference);
    if (await this.#isTagMissing(reference)) {
      // It is fetched by a GET, even if the manifest is stored under another name.
      this.#countManifest(this.#nameOf(reference));
      this.#parts.isCounted(this.#nameOf(top));
    }
    const waiting: Reference[] = [top];
    for (const next of waiting) {
      if (this.#seen.size >= MAX_MANIFESTS) {
        this.#counts = { ...this.#counts, isPartial: true };
        break;
      }
      if (next.kind === "digest" && this.#seen.has(next.digest)) continue;
      const children = await this.#examineManifest(next, platforms);
      waiting.push(
        ...children.map((digest) => ({ kind: "digest", digest }) as const),
      );
    }
    return top.kind === "digest" ? top.digest : undefined;
  }

  async examineReferrers(subject: Digest): Promise<void> {
    const { mirror, key, signal } = this.#parts;
    const { bytes } = await unlessAborted(
      mirror.listReferrers(key, subject, []),
      signal,
    );
    const parsed = parseManifest(bytes, undefined);
    for (const { digest } of parsed.ok ? parsed.children : []) {
      await this.examine({ kind: "digest", digest }, "all");
    }
    for (const tag of signatureTags(subject)) {
      try {
        await this.examine({ kind: "tag", tag }, "all");
      } catch (error) {
        if (registryErrorOf(error)?.status !== 404) throw error;
      }
    }
  }

  /** Asks by a HEAD, which also shows whether the upstream counts pulls. */
  async #resolve(reference: Reference): Promise<Reference> {
    const { mirror, index, key, signal, isOffline } = this.#parts;
    if (isOffline()) {
      if (reference.kind === "digest") return reference;
      const row = await index.getTag(key, reference.tag);
      return row === undefined
        ? reference
        : { kind: "digest", digest: row.digest };
    }
    if (reference.kind === "digest") {
      const row = await index.getLinkedBlob(key, reference.digest);
      if (row !== undefined) return reference;
    }
    const digest = await unlessAborted(
      mirror.headManifest(key, reference),
      signal,
    );
    return digest === undefined || reference.kind === "digest"
      ? reference
      : { kind: "digest", digest };
  }

  async #examineManifest(
    reference: Reference,
    platforms: "all" | readonly string[],
  ): Promise<readonly Digest[]> {
    const { mirror, key, signal } = this.#parts;
    const found = await unlessAborted(
      mirror.peekManifest(key, reference),
      signal,
    );
    this.#seen.add(referenceText(reference));
    if (found?.isStored !== true) this.#countManifest(this.#nameOf(reference));
    if (found === undefined) {
      this.#counts = { ...this.#counts, isPartial: true };
      return [];
    }
    const parsed = parseManifest(found.bytes, found.mediaType);
    if (!parsed.ok) return [];
    for (const { role, isForeign, digest, sizeBytes } of parsed.children) {
      if (role === "blob" && !isForeign) await this.#count(digest, sizeBytes);
    }
    return chooseChildren(found.bytes, parsed, platforms);
  }

  async #isTagMissing(reference: Reference): Promise<boolean> {
    const { index, key, isOffline } = this.#parts;
    return (
      reference.kind === "tag" &&
      !isOffline() &&
      (await index.getTag(key, reference.tag)) === undefined
    );
  }

  #nameOf(reference: Reference): string {
    return `${this.#parts.key.repository} ${referenceText(reference)}`;
  }

  #countManifest(name: string): void {
    const { mirror, key, isCounted } = this.#parts;
    if (isCounted(name)) return;
    const isPull = mirror.pullBudget(key.upstream).remaining !== undefined;
    this.#counts = {
      ...this.#counts,
      manifests: this.#counts.manifests + 1,
      pulls: this.#counts.pulls + (isPull ? 1 : 0),
    };
  }

  async #count(digest: Digest, sizeBytes: number): Promise<void> {
    const { index, key, isCounted } = this.#parts;
    const row =
      (await index.getLinkedBlob(key, digest)) ??
      (await index.getUpstreamBlob(key.upstream, digest));
    if (row !== undefined || isCounted(digest)) return;
    const { blobs, bytes } = this.#counts;
    this.#counts = {
      ...this.#counts,
      blobs: blobs + 1,
      bytes: bytes + sizeBytes,
    };
  }
}
