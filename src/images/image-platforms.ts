import { LRUCache } from "lru-cache";
import type { BlobStore } from "../storage/blob-store.ts";
import type { BlobScope, ImageGraph } from "../storage/graph-index.ts";
import type { BlobRecords } from "../storage/blob-index.ts";
import type { Pace } from "../retention/victim-search.ts";
import type { Digest } from "../oci/digest.ts";
import { parseManifest } from "../oci/manifest.ts";
import {
  isUnknownPlatform,
  readConfigPlatform,
  readIndexPlatforms,
} from "../oci/platform.ts";
import type { RepositoryKey } from "../oci/reference.ts";

/** A platform that an image is published for. */
export interface ImagePlatform {
  /** As `linux/arm64/v8`. */
  readonly platform: string;
  /** The platform's own manifest. */
  readonly digest: Digest;
  /** Whether the platform can be pulled without its upstream. */
  readonly complete: boolean;
}

/** The parsed content of a manifest, which never changes. */
interface Contents {
  /** The config of an image; undefined for an index. */
  readonly config: Digest | undefined;
  /** The children of an index, in its order, with the platforms that it gives them. */
  readonly children: readonly {
    readonly digest: Digest;
    readonly platform: string | undefined;
  }[];
}

/** Platforms reported for one image; an index may name ten thousand. */
const MAX_PLATFORMS = 256;
/** Memory for the contents of manifests, so that a second list reads no file. */
const MAX_CONTENTS_BYTES = 8 * 1024 * 1024;
/** Manifests are never larger; a larger config is not read. */
const MAX_READ_BYTES = 4 * 1024 * 1024;

/** Finds the platforms of an image in its stored manifests, and which of them are complete. */
export class ImagePlatforms {
  readonly #index: Pick<BlobRecords, "getBlob"> &
    Pick<ImageGraph, "isComplete">;
  readonly #blobs: Pick<BlobStore, "read">;
  readonly #pace: Pace;
  readonly #contents = new LRUCache<Digest, Contents>({
    maxSize: MAX_CONTENTS_BYTES,
    sizeCalculation: ({ children }) => 200 + 200 * children.length,
  });
  /** Platforms by config; an empty text if the config names none. */
  readonly #configs = new LRUCache<Digest, string>({ max: 10_000 });

  constructor(options: {
    readonly index: Pick<BlobRecords, "getBlob"> &
      Pick<ImageGraph, "isComplete">;
    readonly blobs: Pick<BlobStore, "read">;
    readonly pace: Pace;
  }) {
    this.#index = options.index;
    this.#blobs = options.blobs;
    this.#pace = options.pace;
  }

  /**
   * Returns the platforms of an index, including those of nested indexes, or the platform of an
   * image. Empty if no stored manifest or config names one.
   */
  async list(
    key: RepositoryKey,
    root: Digest,
    blobScope: BlobScope,
  ): Promise<readonly ImagePlatform[]> {
    const platforms: ImagePlatform[] = [];
    const waiting: { digest: Digest; platform: string | undefined }[] = [
      { digest: root, platform: undefined },
    ];
    const seen = new Set([root]);
    for (const { digest, platform: given } of waiting) {
      if (platforms.length >= MAX_PLATFORMS) break;
      await this.#pace.step();
      const contents = await this.#read(digest);
      for (const child of contents?.children ?? []) {
        if (seen.has(child.digest) || seen.size > MAX_PLATFORMS) continue;
        seen.add(child.digest);
        waiting.push(child);
      }
      if (contents !== undefined && contents.children.length > 0) continue;
      const platform = given ?? (await this.#configPlatform(contents?.config));
      if (platform === undefined || isUnknownPlatform(platform)) continue;
      const complete = await this.#index.isComplete(key, digest, blobScope);
      platforms.push({ platform, digest, complete });
    }
    return platforms;
  }

  /** Whether a blob is the config of a stored manifest. */
  async isConfigOf(manifest: Digest, blob: Digest): Promise<boolean> {
    return (await this.#read(manifest))?.config === blob;
  }

  async #read(digest: Digest): Promise<Contents | undefined> {
    const known = this.#contents.get(digest);
    if (known !== undefined) return known;
    const row = await this.#index.getBlob(digest);
    if (row?.mediaType === undefined) return undefined;
    const bytes = await this.#readBytes(digest, row.sizeBytes);
    const parsed = bytes && parseManifest(bytes, row.mediaType);
    if (bytes === undefined || parsed?.ok !== true) return undefined;
    const platforms: ReadonlyMap<Digest, string> =
      parsed.kind === "index" ? readIndexPlatforms(bytes) : new Map();
    const contents = {
      config: parsed.config,
      children: parsed.children
        .filter(({ role }) => role === "manifest")
        .map((child) => ({
          digest: child.digest,
          platform: platforms.get(child.digest),
        })),
    };
    this.#contents.set(digest, contents);
    return contents;
  }

  async #configPlatform(
    digest: Digest | undefined,
  ): Promise<string | undefined> {
    if (digest === undefined) return undefined;
    const known = this.#configs.get(digest);
    if (known !== undefined) return known === "" ? undefined : known;
    const row = await this.#index.getBlob(digest);
    const bytes = row && (await this.#readBytes(digest, row.sizeBytes));
    if (bytes === undefined) return undefined;
    const platform = readConfigPlatform(bytes);
    this.#configs.set(digest, platform ?? "");
    return platform;
  }

  /** @returns undefined if the bytes are gone, too many, or cannot be read now */
  async #readBytes(
    digest: Digest,
    sizeBytes: number,
  ): Promise<Buffer | undefined> {
    if (sizeBytes > MAX_READ_BYTES) return undefined;
    return this.#blobs.read(digest, sizeBytes).catch(() => undefined);
  }
}
