import type { Mirror } from "../mirror/mirror.ts";
import type { Digest } from "../oci/digest.ts";
import { RegistryError } from "../oci/errors.ts";
import { type ParsedManifest, parseManifest } from "../oci/manifest.ts";
import { isIndex } from "../oci/media-type.ts";
import { coversPlatform, readIndexPlatforms } from "../oci/platform.ts";
import type { Reference, RepositoryKey } from "../oci/reference.ts";
import type { BlobLinks } from "../storage/blob-index.ts";
import type { ImageReference } from "./image-reference.ts";

/** Manifests of one image, its own included; an index may name ten thousand. */
const MAX_MANIFESTS = 1_000;
/** Downloads of one image that run concurrently: engines use three. */
const BLOBS_AT_ONCE = 3;

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
  /** Called after each manifest and each blob. */
  readonly onProgress?: (progress: EnsureProgress) => void;
}

/** Blobs that are stored, of those that the manifests read so far name. */
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

interface EnsureParts {
  readonly mirror: Pick<Mirror, "getManifest" | "fetchBlob" | "settleServed">;
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
    if (row === undefined) {
      await this.#unlessAborted(mirror.fetchBlob(this.#key, digest));
    }
  }

  /** @returns its digest, and the manifests below it that are wanted */
  async #fetchManifest(
    reference: Reference,
  ): Promise<{ readonly digest: Digest; readonly children: Digest[] }> {
    const { mirror, index } = this.#parts;
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
        detail: "the manifest was fetched and not stored",
      });
    }
    const parsed = parseManifest(bytes, mediaType);
    if (!parsed.ok) return { digest, children: [] };
    this.#collectBlobs(parsed);
    this.#report();
    return { digest, children: this.#wantedChildren(bytes, parsed) };
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

  #wantedChildren(bytes: Buffer, { children }: ParsedManifest): Digest[] {
    const { platforms } = this.#options;
    if (platforms.length === 0) return [];
    const platformOf =
      platforms === "all" ? undefined : readIndexPlatforms(bytes);
    return children
      .filter(({ role, digest, mediaType }) => {
        if (role !== "manifest") return false;
        if (platforms === "all") return true;
        const platform = platformOf?.get(digest);
        return platform === undefined
          ? // An index in an index has no platform; its children have.
            isIndex(mediaType)
          : platforms.some((wanted) => coversPlatform(wanted, platform));
      })
      .map(({ digest }) => digest);
  }

  #report(): void {
    this.#options.onProgress?.({ ...this.#progress });
  }

  /** Ends the wait for work that cannot be aborted itself. */
  async #unlessAborted<T>(work: Promise<T>): Promise<T> {
    const { signal } = this.#options;
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const onAbort = (): void => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await Promise.race([work, aborted]);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }
}
