import { type Digest, digestAlgorithm, digestOf } from "../../oci/digest.ts";
import { RegistryError } from "../../oci/errors.ts";
import type { Reference, RepositoryKey } from "../../oci/reference.ts";
import type { BlobLinks } from "../../storage/blob-index.ts";
import type { BlobStore } from "../../storage/blob-store.ts";
import type { HotManifests } from "../../storage/hot-manifests.ts";
import type { UseIndex } from "../../storage/metadata-index.ts";
import type { TagIndex } from "../../storage/tag-index.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { HostedManifest } from "./content.ts";

interface ManifestReadsParts {
  readonly store: Pick<BlobStore, "read">;
  readonly index: Pick<BlobLinks, "getLinkedBlob" | "recallLinkedBlob"> &
    Pick<TagIndex, "getTag" | "recallTag"> &
    Pick<UseIndex, "touchManifest" | "touchTag">;
  readonly hot: HotManifests;
  readonly clock: Clock;
  readonly log: Logger;
}

interface ManifestRow {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly mediaType: string | undefined;
}

/**
 * Reads hosted manifests by tag and by digest. The index decides for each request which manifest a
 * name has now; only bytes are kept in memory.
 */
export class ManifestReads {
  readonly #parts: ManifestReadsParts;

  constructor(parts: ManifestReadsParts) {
    this.#parts = parts;
  }

  /** @returns undefined if row or bytes are not in memory */
  recall(
    key: RepositoryKey,
    reference: Reference,
    isHead: boolean,
  ): HostedManifest | undefined {
    const { index, hot } = this.#parts;
    const row: ManifestRow | undefined =
      reference.kind === "tag"
        ? index.recallTag(key, reference.tag)
        : index.recallLinkedBlob(key, reference.digest);
    if (row?.mediaType === undefined) return undefined;
    const bytes = hot.get(row.digest);
    if (bytes === undefined) return undefined;
    if (!isHead) this.#notePull(key, reference);
    return { bytes, mediaType: row.mediaType, digest: row.digest };
  }

  /** @throws RegistryError MANIFEST_UNKNOWN, IndexError, StorageError */
  async get(
    key: RepositoryKey,
    reference: Reference,
    isHead: boolean,
  ): Promise<HostedManifest> {
    let before: Digest | undefined;
    for (;;) {
      const row = await this.#find(key, reference);
      if (row?.mediaType === undefined) {
        throw new RegistryError("MANIFEST_UNKNOWN");
      }
      const { digest, mediaType } = row;
      const bytes = await this.#read(row);
      if (bytes !== undefined) {
        if (!isHead) this.#notePull(key, reference);
        return { bytes, mediaType, digest };
      }
      // The tag may have moved, and its previous manifest may have been removed, during the read.
      if (before === digest) throw this.#damaged(key, digest);
      before = digest;
    }
  }

  async #find(
    key: RepositoryKey,
    reference: Reference,
  ): Promise<ManifestRow | undefined> {
    const { index } = this.#parts;
    return reference.kind === "tag"
      ? index.getTag(key, reference.tag)
      : index.getLinkedBlob(key, reference.digest);
  }

  /** @returns undefined if the bytes are missing or wrong */
  async #read({ digest, sizeBytes }: ManifestRow): Promise<Buffer | undefined> {
    const { store, hot } = this.#parts;
    const known = hot.get(digest);
    if (known !== undefined) return known;
    const bytes = await store.read(digest, sizeBytes);
    // Small enough to be hashed each time it is read from disk.
    if (
      bytes === undefined ||
      digestOf(bytes, digestAlgorithm(digest)) !== digest
    ) {
      return undefined;
    }
    hot.set(digest, bytes);
    return bytes;
  }

  /** The manifest's names are kept: if it is pushed again, its bytes are written again. */
  #damaged({ upstream, repository }: RepositoryKey, digest: Digest): Error {
    this.#parts.log.error(
      { registry: upstream, repository, digest },
      "a hosted manifest is missing or damaged on disk",
    );
    return new RegistryError("UNKNOWN", {
      message: "the stored manifest is damaged; push it again",
    });
  }

  #notePull(key: RepositoryKey, reference: Reference): void {
    const { index, clock } = this.#parts;
    const nowMs = clock.nowMs();
    if (reference.kind === "tag") index.touchTag(key, reference.tag, nowMs);
    else index.touchManifest(key, reference.digest, nowMs);
  }
}
