import { type ParsedManifest, parseManifest } from "../../oci/manifest.ts";
import type {
  RepositoryKey,
  RepositoryName,
  Tag,
} from "../../oci/reference.ts";
import type {
  BlobLinks,
  BlobRecord,
  BlobRecords,
  FillIntents,
} from "../../storage/blob-index.ts";
import type { TagIndex } from "../../storage/tag-index.ts";
import type { Clock } from "../../telemetry/clock.ts";
import {
  findStored,
  type ForeignFileStore,
  publishBlob,
  SCHEMA1_FAILURE,
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

const NEVER_MS = 0;

interface MirroredTargetParts {
  readonly index: BlobRecords &
    FillIntents &
    Pick<BlobLinks, "getLinkedBlob" | "link"> &
    Pick<TagIndex, "getTag" | "putTag">;
  readonly store: ForeignFileStore;
  readonly clock: Clock;
  /** Returns the key of a repository of the upstream. */
  readonly keyOf: (name: RepositoryName) => RepositoryKey | undefined;
}

/** Records the content of a pull-through proxy as that of an upstream. */
export class MirroredTarget implements TakeoverTarget {
  readonly takesParts = true;
  readonly #parts: MirroredTargetParts;

  constructor(parts: MirroredTargetParts) {
    this.#parts = parts;
  }

  keyOf(name: RepositoryName): RepositoryKey | undefined {
    return this.#parts.keyOf(name);
  }

  takeBlob(
    key: RepositoryKey,
    blob: FolderBlob,
    work: TakeoverWork,
  ): Promise<Taken> {
    return this.#take(key, blob, undefined, work);
  }

  async takeManifest(
    key: RepositoryKey,
    manifest: FolderManifest,
    tags: readonly Tag[],
    work: TakeoverWork,
  ): Promise<Taken> {
    const parsed = readMirroredManifest(manifest.bytes);
    if (!("manifest" in parsed)) return parsed;
    const { mediaType, children, subject } = parsed.manifest;
    const { index, clock } = this.#parts;
    const record = { mediaType, children, subject };
    const taken = await this.#take(key, manifest, record, work);
    if (taken.kind === "failed") return taken;
    for (const tag of tags) {
      // Never confirmed by its upstream: the next pull revalidates it.
      const nowMs = clock.nowMs();
      await index.putTag(key, tag, manifest.digest, NEVER_MS, nowMs);
    }
    return taken;
  }

  async judgeTag(
    key: RepositoryKey,
    { tag, digest, writtenAtMs }: FolderTag,
  ): Promise<TagVerdict> {
    const row = await this.#parts.index.getTag(key, tag);
    if (row === undefined) return { kind: "take" };
    if (row.digest === digest) return { kind: "present" };
    const seenAtMs = Math.max(row.fetchedAtMs, row.verifiedAtMs);
    return { kind: seenAtMs < writtenAtMs ? "take" : "newer" };
  }

  async #take(
    key: RepositoryKey,
    blob: FolderBlob,
    manifest: BlobRecord["manifest"],
    work: TakeoverWork,
  ): Promise<Taken> {
    const { index, clock } = this.#parts;
    const { digest, sizeBytes } = blob;
    const row = await findStored(this.#parts, blob);
    if (row !== undefined && (row.mediaType !== undefined || !manifest)) {
      if ((await index.getLinkedBlob(key, digest)) === undefined) {
        await index.link(key, digest, manifest?.mediaType);
      }
      return { kind: "present" };
    }
    const taken: Taken =
      row === undefined
        ? await this.#publish(key, blob, manifest?.mediaType, work)
        : { kind: "present" };
    if (taken.kind === "failed") return taken;
    await index.recordBlob(key, {
      digest,
      sizeBytes,
      storedAtMs: clock.nowMs(),
      ...(manifest && { manifest }),
    });
    return taken;
  }

  /** Publishes bytes whose row is written next; the next start completes that after a crash. */
  async #publish(
    key: RepositoryKey,
    blob: FolderBlob,
    mediaType: string | undefined,
    work: TakeoverWork,
  ): Promise<Taken> {
    const { index, store } = this.#parts;
    const { digest, sizeBytes } = blob;
    await index.beginFill(key, {
      digest,
      sizeBytes,
      ...(mediaType !== undefined && { mediaType }),
    });
    let taken: Taken | undefined;
    try {
      taken = await publishBlob(store, blob, work);
      return taken;
    } finally {
      if (taken === undefined || taken.kind === "failed") {
        await index.dropIntent(digest).catch(() => undefined);
      }
    }
  }
}

/** Parses a manifest as the mirror parses that of an upstream. */
export function readMirroredManifest(
  bytes: Buffer,
): { readonly manifest: ParsedManifest } | Failed {
  const manifest = parseManifest(bytes, undefined);
  if (!manifest.ok) {
    return { kind: "failed", problem: "unknown", message: manifest.detail };
  }
  return manifest.kind === "schema1" ? SCHEMA1_FAILURE : { manifest };
}
