import { type Digest, digestAlgorithm, digestOf } from "../../../oci/digest.ts";
import { type ParsedManifest, parseManifest } from "../../../oci/manifest.ts";
import { readIndexPlatforms } from "../../../oci/platform.ts";
import type { RepositoryKey } from "../../../oci/reference.ts";
import { Pace } from "../../../retention/victim-search.ts";
import type { BlobLinks, BlobRow } from "../../../storage/blob-index.ts";
import type { TrackedBlobStore } from "../../../storage/tracked-blob-store.ts";

export interface StoredContentParts {
  readonly index: Pick<BlobLinks, "getLinkedBlob" | "getUpstreamBlob">;
  readonly blobs: Pick<TrackedBlobStore, "hold" | "read">;
  /** Whether blobs that another repository of the upstream has need no proof of their own. */
  readonly sharesBlobs: (registry: string) => boolean;
}

/** A stored manifest. */
export interface StoredManifest {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly mediaType: string;
  /** Undefined if it names nothing that is known to this server. */
  readonly parsed: ParsedManifest | undefined;
  /** Of the children of an index. */
  readonly platforms: ReadonlyMap<Digest, string>;
}

/**
 * Finds the stored content of repositories, and keeps what it found from being evicted or deleted until
 * the release.
 */
export class StoredContent {
  readonly #parts: StoredContentParts;
  readonly #holds = new Map<Digest, () => void>();
  /** The index answers synchronously: without pauses a large export would delay every request. */
  readonly #pace = new Pace();

  constructor(parts: StoredContentParts) {
    this.#parts = parts;
  }

  /** @returns undefined if it is not stored for the repository, or not as a manifest, or damaged */
  async readManifest(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<StoredManifest | undefined> {
    const row = await this.#find(digest, () =>
      this.#parts.index.getLinkedBlob(key, digest),
    );
    if (row?.mediaType === undefined) return undefined;
    const { sizeBytes } = row;
    const bytes = await this.#parts.blobs.read(digest, sizeBytes);
    if (bytes === undefined) return undefined;
    if (digestOf(bytes, digestAlgorithm(digest)) !== digest) return undefined;
    const parsed = parseManifest(bytes, row.mediaType);
    return {
      digest,
      sizeBytes,
      mediaType: row.mediaType,
      parsed: parsed.ok ? parsed : undefined,
      platforms:
        parsed.ok && parsed.kind === "index"
          ? readIndexPlatforms(bytes)
          : new Map(),
    };
  }

  /** @returns its size; undefined if the repository may not serve it from the store */
  async findBlob(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<number | undefined> {
    const { index, sharesBlobs } = this.#parts;
    const { upstream } = key;
    const row = await this.#find(
      digest,
      async () =>
        (await index.getLinkedBlob(key, digest)) ??
        (sharesBlobs(upstream)
          ? index.getUpstreamBlob(upstream, digest)
          : undefined),
    );
    return row?.sizeBytes;
  }

  /** Looks a blob up while it is held: what is found then stays. */
  async #find(
    digest: Digest,
    look: () => Promise<BlobRow | undefined>,
  ): Promise<BlobRow | undefined> {
    await this.#pace.step();
    const isHeld = this.#holds.has(digest);
    const release = isHeld
      ? () => undefined
      : await this.#parts.blobs.hold(digest);
    let row: BlobRow | undefined;
    try {
      row = await look();
    } finally {
      if (row === undefined) release();
    }
    if (row !== undefined && !isHeld) this.#holds.set(digest, release);
    return row;
  }

  release(): void {
    for (const release of this.#holds.values()) release();
    this.#holds.clear();
  }
}
