import { type Digest, digestAlgorithm, digestOf } from "../../oci/digest.ts";
import { RegistryError } from "../../oci/errors.ts";
import {
  type PushedDocument,
  parsePushedManifest,
} from "../../oci/pushed-manifest.ts";
import type { Tag } from "../../oci/reference.ts";
import type { BlobRecords } from "../../storage/blob-index.ts";
import type {
  HostedBlobs,
  HostedManifestOutcome,
  HostedManifests,
} from "../../storage/hosted-index.ts";
import type { HotManifests } from "../../storage/hot-manifests.ts";
import type { TrackedBlobStore } from "../../storage/tracked-blob-store.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { Room } from "../../retention/room.ts";
import type { HostedRepository } from "../hosted.ts";
import { immutableTags } from "../immutable-tags.ts";
import { UploadSpace } from "../uploads/upload-space.ts";
import { refuseOutcome } from "./content-refusals.ts";
import type { PushedManifest, StoredManifest } from "./content.ts";

interface ManifestWritesParts {
  readonly store: Pick<TrackedBlobStore, "put" | "hold" | "claim" | "remove">;
  readonly index: Pick<HostedManifests, "putHostedManifest"> &
    Pick<HostedBlobs, "beginHostedWrite"> &
    Pick<BlobRecords, "getBlob">;
  readonly hot: HotManifests;
  readonly clock: Clock;
  /** Returns the bytes of a registry's open uploads, which count towards its quota. */
  readonly reservedBytes: (registry: string) => number;
  /** Absent: not limited before the disk is full. */
  readonly room?: Pick<Room, "reserve"> | undefined;
}

/** A manifest that was pushed, with the fields that events report. */
export interface WrittenManifest extends StoredManifest {
  readonly mediaType: string;
  readonly sizeBytes: number;
}

/** Stores pushed manifests. */
export class ManifestWrites {
  readonly #parts: ManifestWritesParts;

  constructor(parts: ManifestWritesParts) {
    this.#parts = parts;
  }

  /** @throws RegistryError, StorageError, IndexError; nothing has changed then */
  async put(
    repository: HostedRepository,
    pushed: PushedManifest,
  ): Promise<WrittenManifest> {
    const { bytes, reference } = pushed;
    const digest =
      reference.kind === "tag" ? digestOf(bytes) : assertDigest(pushed);
    const tags =
      reference.kind === "tag"
        ? [reference.tag, ...pushed.tags]
        : [...pushed.tags];
    const parsed = parsePushedManifest(bytes, pushed.contentType);
    if (!parsed.ok) {
      const { detail } = parsed;
      const message = "the manifest is invalid";
      throw new RegistryError("MANIFEST_INVALID", {
        status: 400,
        message: `${message}: ${detail}`,
        detail,
      });
    }
    const { store, hot, index } = this.#parts;
    const { key } = repository;
    const sizeBytes = bytes.length;
    const space = new UploadSpace(this.#parts.room);
    await space.begin(sizeBytes);
    const release = await store.hold(digest);
    let outcome: HostedManifestOutcome | undefined;
    try {
      await index.beginHostedWrite(key, {
        digest,
        sizeBytes,
        mediaType: parsed.mediaType,
      });
      await store.put(digest, bytes);
      outcome = await this.#record(repository, digest, parsed, bytes, tags);
    } finally {
      release();
      space.end();
      if (outcome?.kind !== "stored") await this.#removeUnknown(digest);
    }
    if (outcome.kind !== "stored") throw refuseOutcome(outcome, repository);
    hot.set(digest, bytes);
    const { mediaType, subject } = parsed;
    return { digest, tags, subject, mediaType, sizeBytes: bytes.length };
  }

  #record(
    { key, config }: HostedRepository,
    digest: Digest,
    parsed: PushedDocument,
    { length: sizeBytes }: Buffer,
    tags: readonly Tag[],
  ): Promise<HostedManifestOutcome> {
    const { index, clock, reservedBytes } = this.#parts;
    const { mediaType, children, subject, artifactType, annotations } = parsed;
    return index.putHostedManifest(
      key,
      {
        digest,
        sizeBytes,
        storedAtMs: clock.nowMs(),
        mediaType,
        children,
        subject,
        artifactType,
        annotations,
      },
      tags,
      {
        quota: {
          maxBytes: config.quotaBytes,
          get reservedBytes() {
            return reservedBytes(key.upstream);
          },
        },
        isImmutable: immutableTags({ key, config }),
      },
    );
  }

  /** Removes the bytes of a refused manifest, unless they are stored for another repository. */
  async #removeUnknown(digest: Digest): Promise<void> {
    const { store, index } = this.#parts;
    const claim = store.claim([digest]);
    try {
      if (claim.keys.length === 0) return;
      if ((await index.getBlob(digest)) === undefined) {
        await store.remove(digest);
      }
    } catch {
      // The next start finds bytes without a row.
    } finally {
      claim.release();
    }
  }
}

/** @throws RegistryError if the bytes do not have the digest that the client named */
function assertDigest({ bytes, reference }: PushedManifest): Digest {
  if (reference.kind !== "digest") {
    throw new TypeError("got a tag; expected a digest");
  }
  const { digest } = reference;
  if (digestOf(bytes, digestAlgorithm(digest)) !== digest) {
    throw new RegistryError("DIGEST_INVALID", {
      detail: "the manifest does not have the digest in the path",
    });
  }
  return digest;
}
