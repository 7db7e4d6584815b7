import { ManifestWrites } from "../../hosted/content/manifest-writes.ts";
import type { HostedRepository } from "../../hosted/hosted.ts";
import { immutableTags } from "../../hosted/immutable-tags.ts";
import type { HostedConfig } from "../../config/config.ts";
import { RegistryError } from "../../oci/errors.ts";
import { parsePushedManifest } from "../../oci/pushed-manifest.ts";
import type {
  RepositoryKey,
  RepositoryName,
  Tag,
} from "../../oci/reference.ts";
import type {
  BlobLinks,
  BlobRecords,
  FillIntents,
} from "../../storage/blob-index.ts";
import type {
  HostedBlobs,
  HostedManifests,
} from "../../storage/hosted-index.ts";
import { HotManifests } from "../../storage/hot-manifests.ts";
import type { TagIndex } from "../../storage/tag-index.ts";
import type { Clock } from "../../telemetry/clock.ts";
import {
  findStored,
  type ForeignFileStore,
  publishBlob,
} from "./publish-blob.ts";
import type {
  Failed,
  FolderBlob,
  FolderManifest,
  FolderTag,
  TagVerdict,
  Taken,
  TakeoverTarget,
  TakeoverWork,
} from "./takeover.ts";

interface HostedTargetParts {
  readonly index: BlobRecords &
    HostedBlobs &
    Pick<HostedManifests, "putHostedManifest"> &
    Pick<BlobLinks, "getLinkedBlob"> &
    Pick<FillIntents, "dropIntent"> &
    Pick<TagIndex, "getTag">;
  readonly store: ForeignFileStore;
  readonly clock: Clock;
  readonly config: HostedConfig;
  readonly keyOf: (name: RepositoryName) => RepositoryKey | undefined;
}

/** Records the content of a private registry in a hosted one, by the writes that a push makes. */
export class HostedTarget implements TakeoverTarget {
  readonly takesParts = false;
  readonly #parts: HostedTargetParts;
  readonly #hot = new HotManifests();

  constructor(parts: HostedTargetParts) {
    this.#parts = parts;
  }

  keyOf(name: RepositoryName): RepositoryKey | undefined {
    return this.#parts.keyOf(name);
  }

  async takeBlob(
    key: RepositoryKey,
    blob: FolderBlob,
    work: TakeoverWork,
  ): Promise<Taken> {
    const { index, store, clock, config } = this.#parts;
    const { digest, sizeBytes } = blob;
    const row = await findStored(this.#parts, blob);
    if (row !== undefined && (await index.getLinkedBlob(key, digest))) {
      return { kind: "present" };
    }
    const release = await store.hold(digest);
    let taken: Taken | undefined;
    let isRecorded = false;
    try {
      await index.beginHostedWrite(key, { digest, sizeBytes });
      taken =
        row === undefined
          ? await publishBlob(store, blob, work)
          : { kind: "present" };
      if (taken.kind === "failed") return taken;
      const outcome = await index.recordHostedBlob(
        key,
        { digest, sizeBytes, storedAtMs: clock.nowMs() },
        // No upload receives bytes while no mirror runs.
        { maxBytes: config.quotaBytes, reservedBytes: 0 },
      );
      isRecorded = outcome === "stored";
      return isRecorded ? taken : quotaFailure(config.name);
    } finally {
      release();
      if (!isRecorded) await this.#removeUnrecorded(blob);
    }
  }

  async takeManifest(
    key: RepositoryKey,
    manifest: FolderManifest,
    tags: readonly Tag[],
    work: TakeoverWork,
  ): Promise<Taken> {
    const { index, config } = this.#parts;
    const { digest, bytes } = manifest;
    const row = await findStored(this.#parts, manifest);
    const linked = await index.getLinkedBlob(key, digest);
    if (row && linked?.mediaType !== undefined && tags.length === 0) {
      return { kind: "present" };
    }
    const failure = judgeHostedManifest(bytes, config);
    if (failure !== undefined) return failure;
    let taken: Taken = { kind: "present" };
    const writes = this.#manifestWrites(async () => {
      if (row !== undefined) return;
      const { store } = this.#parts;
      taken = await publishBlob(store, manifest, work);
      if (taken.kind === "failed") throw new NotPublished();
    });
    const repository: HostedRepository = { key, config };
    try {
      await writes.put(repository, {
        bytes,
        contentType: undefined,
        reference: { kind: "digest", digest },
        tags,
      });
      return taken;
    } catch (error) {
      if (error instanceof NotPublished) return taken;
      if (!(error instanceof RegistryError)) throw error;
      return refusal(error);
    }
  }

  async judgeTag(
    key: RepositoryKey,
    { tag, digest, writtenAtMs }: FolderTag,
  ): Promise<TagVerdict> {
    const { index, config } = this.#parts;
    const row = await index.getTag(key, tag);
    if (row === undefined) return { kind: "take" };
    if (row.digest === digest) return { kind: "present" };
    if (immutableTags({ key, config })(tag)) {
      const message = `the tag is immutable and is ${row.digest} already`;
      return { kind: "refused", message };
    }
    if (row.fetchedAtMs < writtenAtMs) return { kind: "take" };
    const message = `the tag was pushed here later, and is ${row.digest}`;
    return { kind: "refused", message };
  }

  /** Links the file of a manifest instead of writing its bytes. */
  #manifestWrites(publish: () => Promise<void>): ManifestWrites {
    const { index, store, clock } = this.#parts;
    return new ManifestWrites({
      index,
      clock,
      store: {
        put: publish,
        hold: (digest) => store.hold(digest),
        claim: (digests) => store.claim(digests),
        remove: (digest) => store.remove(digest),
      },
      hot: this.#hot,
      reservedBytes: () => 0,
    });
  }

  /** Removes published bytes that got no row, as after a refused push. */
  async #removeUnrecorded({ digest }: FolderBlob): Promise<void> {
    const { index, store } = this.#parts;
    const claim = store.claim([digest]);
    try {
      if (claim.keys.length === 0) return;
      if ((await index.getBlob(digest)) === undefined) {
        await store.remove(digest);
      }
      await index.dropIntent(digest);
    } catch {
      // The next start finds bytes without a row.
    } finally {
      claim.release();
    }
  }
}

/** @returns undefined if a push of the manifest would be understood */
export function judgeHostedManifest(
  bytes: Buffer,
  { name, maxManifestBytes }: HostedConfig,
): Failed | undefined {
  const parsed = parsePushedManifest(bytes, undefined);
  if (!parsed.ok) {
    const message = parsed.detail;
    return { kind: "failed", problem: "unknown", message };
  }
  if (bytes.length <= maxManifestBytes) return undefined;
  const message = `got a manifest of ${bytes.length} bytes; expected at most ${maxManifestBytes} (maxManifestSize of ${name})`;
  return { kind: "failed", problem: "refused", message };
}

class NotPublished extends Error {}

function quotaFailure(registry: string): Taken {
  const message = `the quota of ${registry} is used up`;
  return { kind: "failed", problem: "refused", message };
}

function refusal({ code, message, detail }: RegistryError): Taken {
  return code === "MANIFEST_BLOB_UNKNOWN"
    ? {
        kind: "failed",
        problem: "missing",
        message: `it names ${detail ?? "content"}, which was not taken over`,
      }
    : {
        kind: "failed",
        problem: code === "MANIFEST_INVALID" ? "unknown" : "refused",
        message,
      };
}
