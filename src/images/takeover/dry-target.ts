import type { Digest } from "../../oci/digest.ts";
import type {
  RepositoryKey,
  RepositoryName,
  Tag,
} from "../../oci/reference.ts";
import type {
  Failed,
  FolderBlob,
  FolderManifest,
  FolderTag,
  TagVerdict,
  Taken,
  TakeoverTarget,
} from "./takeover.ts";

/** Bounds the memory of a dry run. */
const MAX_DIGESTS = 5_000_000;

interface DryTargetParts {
  readonly takesParts: boolean;
  readonly keyOf: (name: RepositoryName) => RepositoryKey | undefined;
  readonly isLinkable: (blob: FolderBlob) => boolean;
  /** Returns whether the storage has the blob. */
  readonly isStored: (blob: FolderBlob) => Promise<boolean>;
  readonly judgeManifest: (bytes: Buffer) => Failed | undefined;
  /** Absent: nothing is stored yet. */
  readonly judgeTag: TakeoverTarget["judgeTag"] | undefined;
  /** Default {@link MAX_DIGESTS}. */
  readonly maxDigests?: number;
}

/** Finds what a take-over would do; changes nothing, and reads the bytes of manifests only. */
export class DryTarget implements TakeoverTarget {
  readonly takesParts: boolean;
  readonly #parts: DryTargetParts;
  readonly #seen = new Set<Digest>();

  constructor(parts: DryTargetParts) {
    this.#parts = parts;
    this.takesParts = parts.takesParts;
  }

  keyOf(name: RepositoryName): RepositoryKey | undefined {
    return this.#parts.keyOf(name);
  }

  async takeBlob(_key: RepositoryKey, blob: FolderBlob): Promise<Taken> {
    const { isStored, isLinkable, maxDigests = MAX_DIGESTS } = this.#parts;
    if (this.#seen.has(blob.digest) || (await isStored(blob))) {
      return { kind: "present" };
    }
    if (this.#seen.size >= maxDigests) {
      throw new Error(
        `got a folder with more than ${maxDigests} blobs; expected fewer for a dry run`,
      );
    }
    this.#seen.add(blob.digest);
    return { kind: isLinkable(blob) ? "linked" : "copied" };
  }

  async takeManifest(
    key: RepositoryKey,
    manifest: FolderManifest,
    _tags: readonly Tag[],
  ): Promise<Taken> {
    return (
      this.#parts.judgeManifest(manifest.bytes) ?? this.takeBlob(key, manifest)
    );
  }

  async judgeTag(key: RepositoryKey, tag: FolderTag): Promise<TagVerdict> {
    return (await this.#parts.judgeTag?.(key, tag)) ?? { kind: "take" };
  }
}
