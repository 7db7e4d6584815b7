import type { Digest } from "../../../src/oci/digest.ts";
import {
  type Reference,
  referenceText,
  type RepositoryKey,
  type RepositoryName,
  type Tag,
} from "../../../src/oci/reference.ts";
import type {
  BlobRecord,
  BlobRow,
  NotedIntent,
} from "../../../src/storage/blob-index.ts";
import type {
  ReferrersRow,
  TagListRow,
} from "../../../src/storage/list-index.ts";

import type { RecordKind } from "../../../src/storage/kept-records.ts";
import type { UploadId } from "../../../src/storage/blob-store.ts";
import type { UploadRow } from "../../../src/storage/hosted-index.ts";

/** A link that holds its blob. */
export interface HostedLink {
  claimedAtMs: number | undefined;
  isMarked: boolean;
}

export interface HostedManifest {
  readonly digest: Digest;
  /** Undefined while something in the repository needs the manifest. */
  untaggedAtMs: number | undefined;
  readonly subject: Digest | undefined;
  readonly artifactType: string | undefined;
  readonly annotations: Readonly<Record<string, string>> | undefined;
}

export interface Edge {
  readonly digest: Digest;
  readonly isManifest: boolean;
  readonly isForeign: boolean;
  readonly sizeBytes: number;
  readonly mediaType: string;
}

export interface StoredManifest {
  mediaType: string;
  subject: Digest | undefined;
  children: ReadonlyMap<Digest, Edge>;
}

export interface StoredBlob {
  readonly digest: Digest;
  /** Grows with each blob that is stored. */
  readonly place: number;
  sizeBytes: number;
  storedAtMs: number;
  verifiedAtMs: number;
  usedAtMs: number;
  manifest: StoredManifest | undefined;
}

export interface StoredTag {
  digest: Digest;
  fetchedAtMs: number;
  verifiedAtMs: number;
  usedAtMs: number;
  goneAtMs: number | undefined;
  isPinned: boolean;
  isHosted: boolean;
}

/** A root that is not a tag. */
export interface DigestRoot {
  usedAtMs: number;
  isPinned: boolean;
}

/** A repository and everything that belongs to it. */
export class StoredRepository {
  readonly key: RepositoryKey;
  /** The linked digests, with the media type of a manifest if it differs from the stored one. */
  readonly links = new Map<Digest, string | undefined>();
  readonly tags = new Map<Tag, StoredTag>();
  readonly roots = new Map<Digest, DigestRoot>();
  readonly lostPins = new Map<string, Reference>();
  readonly referrers = new Map<Digest, ReferrersRow>();
  tagList: TagListRow | undefined;
  /** Only of a hosted repository. */
  readonly hostedLinks = new Map<Digest, HostedLink>();
  readonly hostedManifests = new Map<Digest, HostedManifest>();
  isHosted = false;

  constructor(key: RepositoryKey) {
    this.key = key;
  }

  get path(): string {
    return pathOf(this.key);
  }

  /** Removes the lost pin of a reference. @returns whether there was one */
  takeLostPin(reference: Reference): boolean {
    return this.lostPins.delete(referenceText(reference));
  }

  /** Removes a link with everything that exists only as long as it. */
  unlink(digest: Digest): void {
    this.links.delete(digest);
    this.referrers.delete(digest);
    this.hostedLinks.delete(digest);
    this.hostedManifests.delete(digest);
  }

  keepLostPin(reference: Reference): void {
    this.lostPins.set(referenceText(reference), reference);
  }
}

export function pathOf(key: RepositoryKey): string {
  return `${key.upstream}/${key.repository}`;
}

/** The owner of content that was found on disk and that no client requested since. */
const UNCLAIMED: RepositoryKey = {
  upstream: "",
  repository: "" as RepositoryName,
};

/** The rows of an index in memory. */
export class MemoryTables {
  readonly blobs = new Map<Digest, StoredBlob>();
  readonly repositories = new Map<string, StoredRepository>();
  readonly intents = new Map<Digest, NotedIntent>();
  readonly condemned = new Set<Digest>();
  /** Condemned blobs that a caller removes now. */
  readonly beingRemoved = new Set<Digest>();
  readonly records: Readonly<Record<RecordKind, Map<string, string>>> = {
    job: new Map(),
    wish: new Map(),
  };
  readonly uploads = new Map<UploadId, UploadRow>();
  readonly unclaimed: StoredRepository;
  #places = 0;

  constructor() {
    this.unclaimed = this.makeRepository(UNCLAIMED);
  }

  repository(key: RepositoryKey): StoredRepository | undefined {
    return this.repositories.get(pathOf(key));
  }

  makeRepository(key: RepositoryKey): StoredRepository {
    const path = pathOf(key);
    const repository = this.repositories.get(path) ?? new StoredRepository(key);
    this.repositories.set(path, repository);
    return repository;
  }

  /** Inserts or updates a blob, with its edges if it is a manifest, and settles its intent. */
  putBlob({ digest, sizeBytes, storedAtMs, manifest }: BlobRecord): StoredBlob {
    const blob = this.blobs.get(digest) ?? {
      digest,
      place: ++this.#places,
      sizeBytes,
      storedAtMs,
      verifiedAtMs: 0,
      usedAtMs: storedAtMs,
      manifest: undefined,
    };
    blob.sizeBytes = sizeBytes;
    blob.storedAtMs = storedAtMs;
    if (manifest !== undefined) {
      blob.manifest = {
        mediaType: blob.manifest?.mediaType ?? manifest.mediaType,
        subject: manifest.subject,
        children: edgesOf(manifest.children),
      };
    }
    this.blobs.set(digest, blob);
    this.intents.delete(digest);
    return blob;
  }

  putLinkType(
    repository: StoredRepository,
    { digest, manifest }: StoredBlob,
    mediaType: string,
  ): void {
    const current = repository.links.get(digest) ?? manifest?.mediaType;
    if (mediaType !== current) repository.links.set(digest, mediaType);
  }

  /** Removes a blob with everything that refers to it, except the edges of manifests that name it. */
  deleteBlob(digest: Digest): void {
    this.blobs.delete(digest);
    this.condemned.delete(digest);
    this.beingRemoved.delete(digest);
    for (const repository of this.repositories.values()) {
      repository.unlink(digest);
      repository.roots.delete(digest);
      for (const [tag, { digest: target }] of repository.tags) {
        if (target === digest) repository.tags.delete(tag);
      }
    }
  }

  /** @returns a function that restores the present rows, except those of blobs that change in place */
  save(): () => void {
    const maps: readonly Map<unknown, unknown>[] = [
      this.blobs,
      ...[...this.repositories.values()].flatMap((repository) => [
        repository.links,
        repository.tags,
        repository.roots,
        repository.lostPins,
        repository.referrers,
        repository.hostedLinks,
        repository.hostedManifests,
      ]),
    ];
    const kept = maps.map(
      (map) =>
        new Map(
          [...map].map(([key, row]): [unknown, unknown] => [
            key,
            map === this.blobs ? row : structuredClone(row),
          ]),
        ),
    );
    const sets = [this.condemned, this.beingRemoved];
    const keptSets = sets.map((set) => new Set(set));
    return () => {
      for (const [n, map] of maps.entries()) {
        map.clear();
        for (const [key, row] of kept[n] ?? []) map.set(key, row);
      }
      for (const [n, set] of sets.entries()) {
        set.clear();
        for (const digest of keptSets[n] ?? []) set.add(digest);
      }
    };
  }

  /** Returns the stored manifests that name the digest as a child. */
  parentsOf(digest: Digest): readonly StoredBlob[] {
    return [...this.blobs.values()].filter(
      ({ manifest }) => manifest?.children.has(digest) === true,
    );
  }

  /** Counts tags, other roots and stored manifests that need the digest. */
  countHolders(digest: Digest): number {
    let holders = this.parentsOf(digest).length;
    for (const { tags, roots, hostedLinks } of this.repositories.values()) {
      if (roots.has(digest)) holders++;
      if (hostedLinks.has(digest)) holders++;
      for (const tag of tags.values()) if (tag.digest === digest) holders++;
    }
    return holders;
  }
}

export function blobRow(
  { digest, sizeBytes, storedAtMs, verifiedAtMs, manifest }: StoredBlob,
  linkType: string | undefined,
): BlobRow {
  return {
    digest,
    sizeBytes,
    mediaType: linkType ?? manifest?.mediaType,
    storedAtMs,
    verifiedAtMs: Math.max(storedAtMs, verifiedAtMs),
  };
}

/** A child that is named twice is foreign only if it is foreign both times. */
function edgesOf(
  children: NonNullable<BlobRecord["manifest"]>["children"],
): ReadonlyMap<Digest, Edge> {
  const edges = new Map<Digest, Edge>();
  for (const { digest, role, isForeign, sizeBytes, mediaType } of children) {
    const earlier = edges.get(digest);
    edges.set(
      digest,
      earlier === undefined
        ? {
            digest,
            isManifest: role === "manifest",
            isForeign,
            sizeBytes,
            mediaType,
          }
        : { ...earlier, isForeign: earlier.isForeign && isForeign },
    );
  }
  return edges;
}
