import type { Mirror } from "../../mirror/mirror.ts";
import type { Digest } from "../../oci/digest.ts";
import { RegistryError } from "../../oci/errors.ts";
import { parseManifest } from "../../oci/manifest.ts";
import {
  type Reference,
  REFERRERS_TAG_SUFFIXES,
  referrersTag,
  type RepositoryKey,
  type Tag,
} from "../../oci/reference.ts";
import type { BlobLinks } from "../../storage/blob-index.ts";
import type { ImageIndex } from "../../storage/root-index.ts";
import type { TagIndex } from "../../storage/tag-index.ts";
import {
  createEnsureImage,
  type EnsureImage,
  type EnsureProgress,
} from "../ensure-image.ts";
import { type ImageReference, imageText } from "../image-reference.ts";
import { unlessAborted } from "../unless-aborted.ts";
import type { BudgetGate } from "./budget-gate.ts";
import { registryErrorOf } from "./failure-text.ts";
import type { WarmTarget } from "./warm-targets.ts";

/** Referrers of one image, those of referrers included. */
const MAX_REFERRERS = 1_000;

export interface WarmImageParts {
  readonly mirror: Pick<
    Mirror,
    | "fetchBlob"
    | "fetchManifest"
    | "headManifest"
    | "listReferrers"
    | "receivedBytes"
    | "refreshTag"
    | "settleServed"
  >;
  readonly index: Pick<BlobLinks, "getLinkedBlob"> &
    Pick<TagIndex, "getTag"> &
    Pick<ImageIndex, "getRoot">;
  /** Pins an image and records the order. @returns false if it is not stored as an image by itself */
  readonly pin: (image: ImageReference, client: string) => Promise<boolean>;
  readonly isOffline: () => boolean;
}

export interface WarmImageOptions {
  readonly withReferrers: boolean;
  /** The source of the order to pin; undefined: not pinned. */
  readonly pinFor: string | undefined;
  readonly gate: BudgetGate;
  readonly signal: AbortSignal;
  readonly onProgress: (
    progress: Pick<EnsureProgress, "bytesDone" | "bytesKnown">,
  ) => void;
}

/** Makes images present in the cache, and with them their referrers and pins. */
export class WarmImages {
  readonly #parts: WarmImageParts;
  readonly #ensureImage: EnsureImage;

  constructor(parts: WarmImageParts) {
    const { mirror, index } = parts;
    this.#parts = parts;
    this.#ensureImage = createEnsureImage({
      mirror: {
        getManifest: (key, reference) => mirror.fetchManifest(key, reference),
        fetchBlob: (key, digest) => mirror.fetchBlob(key, digest),
        settleServed: () => mirror.settleServed(),
        receivedBytes: (key, digest) => mirror.receivedBytes(key, digest),
      },
      index,
    });
  }

  /**
   * Makes one image present. A tag is revalidated, by one HEAD if it is stored; what is stored is not
   * fetched.
   *
   * @returns the digest of its manifest
   * @throws Refusal, RegistryError, BudgetConservedError, IndexError; the signal's reason
   */
  async warm(target: WarmTarget, options: WarmImageOptions): Promise<Digest> {
    const { image } = target;
    const progress = new SummedProgress(options.onProgress);
    const digest = await this.#resolve(image, options);
    await this.#ensure(image.key, digest, target.platforms, options, progress);
    if (options.withReferrers) {
      await this.#warmReferrers(image.key, digest, options, progress);
    }
    await this.#pin(image, options);
    return digest;
  }

  /** Whether an image is still stored, some time after it was made present. */
  async isStored(
    { key, reference }: ImageReference,
    digest: Digest,
  ): Promise<boolean> {
    const { index } = this.#parts;
    const row =
      reference.kind === "tag"
        ? await index.getTag(key, reference.tag)
        : await index.getLinkedBlob(key, digest);
    return row !== undefined;
  }

  async #ensure(
    key: RepositoryKey,
    digest: Digest,
    platforms: readonly string[],
    { gate, signal }: WarmImageOptions,
    progress: SummedProgress,
  ): Promise<void> {
    const reference = { kind: "digest", digest } as const;
    progress.begin();
    await this.#ensureImage(
      { key, reference },
      {
        platforms: platforms.length === 0 ? "all" : platforms,
        signal,
        beforeFetch: () => gate.pass({ key, reference }),
        onProgress: (now) => progress.report(now),
      },
    );
  }

  /** Returns the digest that the reference has now. */
  async #resolve(
    image: ImageReference,
    { gate, signal }: WarmImageOptions,
  ): Promise<Digest> {
    const { mirror, index, isOffline } = this.#parts;
    const { key, reference } = image;
    if (reference.kind === "digest") return reference.digest;
    if (isOffline()) {
      // A stored tag is served however old it is.
      const found = await unlessAborted(
        mirror.fetchManifest(key, reference),
        signal,
      );
      if (found.digest === undefined) throw new RegistryError("UNSUPPORTED");
      return found.digest;
    }
    // A tag that is not stored is fetched by a GET, which is a pull.
    if ((await index.getTag(key, reference.tag)) === undefined) {
      await gate.pass(image);
    }
    const refreshed = await unlessAborted(
      mirror.refreshTag(key, reference.tag),
      signal,
    );
    return refreshed.digest;
  }

  /**
   * Makes the referrers present, by the API and by the tags that clients derive from the digest, and
   * the referrers of those: signatures of attestations.
   */
  async #warmReferrers(
    key: RepositoryKey,
    image: Digest,
    options: WarmImageOptions,
    progress: SummedProgress,
  ): Promise<void> {
    const seen = new Set([image]);
    const ensure = async (digest: Digest): Promise<void> => {
      if (seen.has(digest)) return;
      if (seen.size > MAX_REFERRERS) {
        throw new RegistryError("MANIFEST_INVALID", {
          detail: `got an image with more than ${MAX_REFERRERS} referrers; expected fewer`,
        });
      }
      seen.add(digest);
      await this.#ensure(key, digest, [], options, progress);
    };
    // The set grows while it is read: referrers of referrers follow.
    for (const subject of seen) {
      for (const digest of await this.#listReferrers(key, subject, options)) {
        await ensure(digest);
      }
    }
    for (const tag of signatureTags(image)) {
      const reference: Reference = { kind: "tag", tag };
      if (!(await this.#exists({ key, reference }, options.signal))) continue;
      await ensure(await this.#resolve({ key, reference }, options));
      await this.#pin({ key, reference }, options);
    }
  }

  async #listReferrers(
    key: RepositoryKey,
    subject: Digest,
    { signal }: WarmImageOptions,
  ): Promise<readonly Digest[]> {
    const { bytes } = await unlessAborted(
      this.#parts.mirror.listReferrers(key, subject, []),
      signal,
    );
    const parsed = parseManifest(bytes, undefined);
    return parsed.ok ? parsed.children.map(({ digest }) => digest) : [];
  }

  /** Whether the upstream has the tag; offline, whether it is stored. */
  async #exists(
    { key, reference }: ImageReference,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { mirror, index, isOffline } = this.#parts;
    if (isOffline()) {
      return (await index.getRoot(key, reference)) !== undefined;
    }
    try {
      await unlessAborted(mirror.headManifest(key, reference), signal);
      return true;
    } catch (error) {
      const { status } = registryErrorOf(error) ?? {};
      if (status === 404) return false;
      throw error;
    }
  }

  /** Pins the image if that is ordered. A pinned one is left alone: each pin is an audit record. */
  async #pin(
    image: ImageReference,
    { pinFor }: WarmImageOptions,
  ): Promise<void> {
    if (pinFor === undefined) return;
    const root = await this.#parts.index.getRoot(image.key, image.reference);
    if (root?.isPinned === true) return;
    if (await this.#parts.pin(image, pinFor)) return;
    throw new RegistryError("MANIFEST_UNKNOWN", {
      detail: `${imageText(image)} was fetched and is not stored as an image by itself; pin the tag that names it`,
    });
  }
}

/** Returns the tags under which clients keep signatures of a manifest. */
export function signatureTags(digest: Digest): readonly Tag[] {
  const tag = referrersTag(digest);
  return REFERRERS_TAG_SUFFIXES.filter((suffix) => suffix !== "").map(
    (suffix) => `${tag}${suffix}` as Tag,
  );
}

/** Sums the progress of an image and of its referrers. */
class SummedProgress {
  readonly #report: WarmImageOptions["onProgress"];
  #before = { bytesDone: 0, bytesKnown: 0 };
  #now = { bytesDone: 0, bytesKnown: 0 };

  constructor(report: WarmImageOptions["onProgress"]) {
    this.#report = report;
  }

  begin(): void {
    this.#before = sum(this.#before, this.#now);
    this.#now = { bytesDone: 0, bytesKnown: 0 };
  }

  report(now: EnsureProgress): void {
    this.#now = now;
    this.#report(sum(this.#before, now));
  }
}

interface Bytes {
  readonly bytesDone: number;
  readonly bytesKnown: number;
}

function sum(one: Bytes, other: Bytes): Bytes {
  return {
    bytesDone: one.bytesDone + other.bytesDone,
    bytesKnown: one.bytesKnown + other.bytesKnown,
  };
}
