import type { Mirror } from "../mirror/mirror.ts";
import type { Digest } from "../oci/digest.ts";
import { RegistryError } from "../oci/errors.ts";
import { type ParsedManifest, parseManifest } from "../oci/manifest.ts";
import { isIndex } from "../oci/media-type.ts";
import {
  coversPlatform,
  isUnknownPlatform,
  readIndexPlatforms,
} from "../oci/platform.ts";
import type { Reference, RepositoryKey } from "../oci/reference.ts";
import type { BlobLinks } from "../storage/blob-index.ts";
import type { ImageReference } from "./image-reference.ts";
import { unlessAborted } from "./unless-aborted.ts";

/** Manifests of one image, its own included; an index may name ten thousand. */
const MAX_MANIFESTS = 1_000;
/** Downloads of one image that run concurrently: engines use three. */
const BLOBS_AT_ONCE = 3;
/** Platforms that an error names. */
const MAX_NAMED_PLATFORMS = 12;
/** How often the progress of running downloads is reported. */
const PROGRESS_EVERY_MS = 500;

export interface EnsureOptions {
  /**
   * Platforms of an index to make present, as `linux/arm64` or `linux/arm64/v8`; the first covers
   * every variant. `[]`: only the index itself. An image without an index is always made present.
   */
  readonly platforms: "all" | readonly string[];
  /** True: manifests only. */
  readonly isWithoutBlobs?: boolean;
  /** Ends the waits. A download that has begun continues in the background, and is kept. */
  readonly signal: AbortSignal;
  /** Called after each manifest and each blob, and twice a second while blobs are downloaded. */
  readonly onProgress?: (progress: EnsureProgress) => void;
  /** Waited for before a digest that is not stored is fetched as a manifest; a rejection ends the work. */
  readonly beforeFetch?: () => Promise<void>;
}

/**
 * Blobs that are stored, of those that the manifests read so far name; the bytes include those that
 * running downloads have received.
 */
export interface EnsureProgress {
  readonly blobsDone: number;
  readonly blobsKnown: number;
  readonly bytesDone: number;
  readonly bytesKnown: number;
}

/**
 * Makes an image present in the cache: its manifest, the manifests of the wanted platforms, and
 * their blobs, except for layers that are published elsewhere. Ends at the first failure; what was
 * stored by then is kept.
 *
 * @returns the digest of the image's manifest
 * @throws Refusal, RegistryError, IndexError; the signal's reason if it is aborted
 */
export type EnsureImage = (
  image: ImageReference,
  options: EnsureOptions,
) => Promise<Digest>;

export interface EnsureParts {
  readonly mirror: Pick<Mirror, "getManifest" | "fetchBlob" | "settleServed"> &
    Partial<Pick<Mirror, "receivedBytes">>;
  readonly index: Pick<BlobLinks, "getLinkedBlob">;
}

export function createEnsureImage(parts: EnsureParts): EnsureImage {
  return async ({ key, reference }, options) => {
    const run = new EnsureRun(parts, key, options);
    const digest = await run.fetchManifests(reference);
    await run.fetchBlobs();
    return digest;
  };
}

class EnsureRun {
  readonly #parts: EnsureParts;
  readonly #key: RepositoryKey;
  readonly #options: EnsureOptions;
  /** Sizes of the blobs that manifests name. */
  readonly #blobs = new Map<Digest, number>();
  /** Those that are being downloaded. */
  readonly #running = new Set<Digest>();
  readonly #progress = {
    blobsDone: 0,
    blobsKnown: 0,
    bytesDone: 0,
    bytesKnown: 0,
  };

  constructor(parts: EnsureParts, key: RepositoryKey, options: EnsureOptions) {
    this.#parts = parts;
    this.#key = key;
    this.#options = options;
  }

  /** Makes the manifests present, and collects the blobs that they name. */
  async fetchManifests(reference: Reference): Promise<Digest> {
    const image = await this.#fetchManifest(reference);
    const seen = new Set<Digest>([image.digest]);
    const waiting: Digest[] = [...image.children];
    for (const digest of waiting) {
      if (seen.has(digest)) continue;
      if (seen.size >= MAX_MANIFESTS) {
        throw new RegistryError("MANIFEST_INVALID", {
          detail: `got an image with more than ${MAX_MANIFESTS} manifests; expected fewer: name its platforms`,
        });
      }
      seen.add(digest);
      const child = await this.#fetchManifest({ kind: "digest", digest });
      waiting.push(...child.children);
    }
    return image.digest;
  }

  /** Makes the collected blobs present, some of them concurrently. */
  async fetchBlobs(): Promise<void> {
    const timer =
      this.#options.onProgress === undefined
        ? undefined
        : setInterval(() => this.#report(), PROGRESS_EVERY_MS);
    try {
      await this.#fetchBlobs();
    } finally {
      clearInterval(timer);
    }
  }

  async #fetchBlobs(): Promise<void> {
    const blobs = this.#blobs.entries();
    let isFailed = false;
    const work = async (): Promise<void> => {
      // The iterator is shared: each worker takes the next blob.
      for (const [digest, sizeBytes] of blobs) {
        if (isFailed) return;
        try {
          await this.#fetchBlob(digest);
        } catch (error) {
          isFailed = true;
          throw error;
        }
        this.#progress.blobsDone += 1;
        this.#progress.bytesDone += sizeBytes;
        this.#report();
      }
    };
    await Promise.all(Array.from({ length: BLOBS_AT_ONCE }, work));
  }

  async #fetchBlob(digest: Digest): Promise<void> {
    const { mirror, index } = this.#parts;
    this.#options.signal.throwIfAborted();
    const row = await index.getLinkedBlob(this.#key, digest);
    if (row !== undefined) return;
    this.#running.add(digest);
    try {
      await this.#unlessAborted(mirror.fetchBlob(this.#key, digest));
    } finally {
      this.#running.delete(digest);
    }
  }

  /** @returns its digest, and the manifests below it that are wanted */
  async #fetchManifest(
    reference: Reference,
  ): Promise<{ readonly digest: Digest; readonly children: Digest[] }> {
    const { mirror, index } = this.#parts;
    await this.#settleBeforeFetch(reference);
    const { bytes, mediaType, digest } = await this.#unlessAborted(
      mirror.getManifest(this.#key, reference),
    );
    const isStored = async (): Promise<boolean> =>
      digest !== undefined &&
      (await index.getLinkedBlob(this.#key, digest)) !== undefined;
    if (!(await isStored())) {
      // A slow disk: the answer does not wait for the manifest to be stored, but this does.
      await this.#unlessAborted(mirror.settleServed());
    }
    if (digest === undefined || !(await isStored())) {
      throw new RegistryError("UNAVAILABLE", {
        detail:
          "the manifest was fetched and not stored: the storage has no room for it, or fails",
      });
    }
    const parsed = parseManifest(bytes, mediaType);
    if (!parsed.ok) return { digest, children: [] };
    this.#collectBlobs(parsed);
    this.#report();
    return {
      digest,
      children: chooseChildren(bytes, parsed, this.#options.platforms),
    };
  }

  async #settleBeforeFetch(reference: Reference): Promise<void> {
    const { beforeFetch } = this.#options;
    if (beforeFetch === undefined || reference.kind === "tag") return;
    const { digest } = reference;
    const row = await this.#parts.index.getLinkedBlob(this.#key, digest);
    if (row === undefined) await beforeFetch();
  }

  #collectBlobs({ children }: ParsedManifest): void {
    if (this.#options.isWithoutBlobs === true) return;
    for (const { role, isForeign, digest, sizeBytes } of children) {
      if (role !== "blob" || isForeign || this.#blobs.has(digest)) continue;
      this.#blobs.set(digest, sizeBytes);
      this.#progress.blobsKnown += 1;
      this.#progress.bytesKnown += sizeBytes;
    }
  }

  #report(): void {
    const { onProgress } = this.#options;
    if (onProgress === undefined) return;
    let { bytesDone } = this.#progress;
    for (const digest of this.#running) {
      const received = this.#parts.mirror.receivedBytes?.(this.#key, digest);
      bytesDone += Math.min(received ?? 0, this.#blobs.get(digest) ?? 0);
    }
    onProgress({ ...this.#progress, bytesDone });
  }

  #unlessAborted<T>(work: Promise<T>): Promise<T> {
    return unlessAborted(work, this.#options.signal);
  }
}

/**
 * Returns the manifests below an index that are of the wanted platforms.
 *
 * @throws RegistryError MANIFEST_UNKNOWN if the index has platforms, and none of them is wanted
 */
export function chooseChildren(
  bytes: Buffer,
  { children }: ParsedManifest,
  platforms: EnsureOptions["platforms"],
): Digest[] {
  if (platforms.length === 0) return [];
  const manifests = children.filter(({ role }) => role === "manifest");
  if (platforms === "all") return manifests.map(({ digest }) => digest);
  const platformOf = readIndexPlatforms(bytes);
  const chosen = manifests.filter(({ digest, mediaType }) => {
    const platform = platformOf.get(digest);
    return platform === undefined
      ? // An index in an index has no platform; its children have.
        isIndex(mediaType)
      : platforms.some((wanted) => coversPlatform(wanted, platform));
  });
  if (chosen.length === 0 && platformOf.size > 0) {
    throw noPlatform(platforms, [...platformOf.values()]);
  }
  return chosen.map(({ digest }) => digest);
}

function noPlatform(
  wanted: readonly string[],
  platforms: readonly string[],
): RegistryError {
  const known = [...new Set(platforms)].filter(
    (platform) => !isUnknownPlatform(platform),
  );
  const named = known.slice(0, MAX_NAMED_PLATFORMS).join(", ");
  const rest = known.length > MAX_NAMED_PLATFORMS ? ", …" : "";
  return new RegistryError("MANIFEST_UNKNOWN", {
    detail: `the image has no manifest for ${wanted.join(" or ")}; it has ${named}${rest}`,
  });
}
