import type { BlobStore } from "../cache/blob-store.ts";
import type { HotManifests } from "../cache/hot-manifests.ts";
import type { MetadataIndex, RepositoryKey } from "../cache/metadata-index.ts";
import { type Digest, digestAlgorithm, digestOf } from "../oci/digest.ts";
import { RegistryError } from "../oci/errors.ts";
import { parseManifest } from "../oci/manifest.ts";
import type { Clock } from "../telemetry/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { UpstreamManifest } from "../upstream/client.ts";
import type { FetchedManifest, Manifest } from "./manifest-answers.ts";

/** Manifests in memory, in the store and in the index, which is the order in which they are looked for. */
export class StoredManifests {
  readonly #store: BlobStore;
  readonly #index: MetadataIndex;
  readonly #hot: HotManifests;
  readonly #clock: Clock;
  readonly #log: Logger;

  constructor(options: {
    readonly store: BlobStore;
    readonly index: MetadataIndex;
    readonly hot: HotManifests;
    readonly clock: Clock;
    readonly log: Logger;
  }) {
    this.#store = options.store;
    this.#index = options.index;
    this.#hot = options.hot;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** @returns undefined where its bytes are gone, or can't be read now */
  async read(
    digest: Digest,
    sizeBytes: number,
    mediaType: string,
  ): Promise<Manifest | undefined> {
    const hot = this.#hot.get(digest);
    if (hot !== undefined) return { ...hot, digest };
    try {
      const bytes = await this.#store.read(digest, sizeBytes);
      // Small enough to be hashed each time it comes from the disk.
      if (
        bytes === undefined ||
        digestOf(bytes, digestAlgorithm(digest)) !== digest
      ) {
        await this.#index.forgetBlob(digest);
        return undefined;
      }
      this.#hot.set(digest, { bytes, mediaType });
      return { bytes, mediaType, digest };
    } catch {
      return undefined;
    }
  }

  /** Stores verified bytes. A storage that fails keeps nothing and spoils nothing. */
  async keep(
    key: RepositoryKey,
    digest: Digest,
    fetched: UpstreamManifest,
  ): Promise<FetchedManifest> {
    const parsed = parseManifest(fetched.bytes, fetched.mediaType);
    if (!parsed.ok) {
      throw new RegistryError("MANIFEST_INVALID", { detail: parsed.detail });
    }
    const { mediaType } = parsed;
    const { bytes } = fetched;
    try {
      const sizeBytes = bytes.length;
      await this.#index.beginFill(key, { digest, sizeBytes, mediaType });
      await this.#store.put(digest, bytes);
      await this.#index.recordBlob(key, {
        digest,
        sizeBytes: bytes.length,
        storedAtMs: this.#clock.nowMs(),
        manifest: {
          mediaType,
          children: parsed.children,
          subject: parsed.subject,
        },
      });
      this.#hot.set(digest, { bytes, mediaType });
    } catch (error) {
      this.#log.warn(
        { err: error, upstream: key.upstream, digest },
        "a manifest could not be stored",
      );
      return { bytes, mediaType, digest, isStored: false };
    }
    return { bytes, mediaType, digest, isStored: true };
  }
}
