import type { Digest } from "../../../src/oci/digest.ts";
import type { RepositoryKey, Tag } from "../../../src/oci/reference.ts";
import type {
  CollectionStep,
  HostedBlobOutcome,
  HostedBlobRecord,
  HostedDeletion,
  HostedManifestOutcome,
  HostedManifestRecord,
  HostedTag,
  ImmutableTags,
  ManifestConditions,
  QuotaCondition,
  UntaggedManifest,
} from "../../../src/storage/hosted-index.ts";
import type { BlobRecord } from "../../../src/storage/blob-index.ts";
import type { CondemnedBlob } from "../../../src/storage/root-index.ts";
import type { Clock } from "../../../src/telemetry/clock.ts";
import type { MemoryRoots } from "./memory-roots.ts";
import type {
  HostedManifest,
  MemoryTables,
  StoredRepository,
} from "./memory-tables.ts";

/** The rules of hosted repositories. */
export class MemoryHosted {
  readonly #tables: MemoryTables;
  readonly #roots: MemoryRoots;
  readonly #clock: Pick<Clock, "nowMs">;

  constructor(
    tables: MemoryTables,
    roots: MemoryRoots,
    clock: Pick<Clock, "nowMs">,
  ) {
    this.#tables = tables;
    this.#roots = roots;
    this.#clock = clock;
  }

  find(key: RepositoryKey): StoredRepository | undefined {
    const repository = this.#tables.repository(key);
    return repository?.isHosted === true ? repository : undefined;
  }

  make(key: RepositoryKey): StoredRepository {
    const repository = this.#tables.makeRepository(key);
    repository.isHosted = true;
    return repository;
  }

  repositoriesOf(registry: string): StoredRepository[] {
    return [...this.#tables.repositories.values()].filter(
      ({ key, isHosted }) => isHosted && key.upstream === registry,
    );
  }

  /** Returns the distinct digests of a registry. */
  contentOf(registry: string): ReadonlySet<Digest> {
    return new Set(
      this.repositoriesOf(registry).flatMap(({ hostedLinks }) => [
        ...hostedLinks.keys(),
      ]),
    );
  }

  bytesOf(content: ReadonlySet<Digest>): number {
    let bytes = 0;
    for (const digest of content) {
      bytes += this.#tables.blobs.get(digest)?.sizeBytes ?? 0;
    }
    return bytes;
  }

  // --- blobs -----------------------------------------------------------------------------------

  recordBlob(
    key: RepositoryKey,
    blob: HostedBlobRecord,
    quota: QuotaCondition,
  ): Exclude<HostedBlobOutcome, "absent"> {
    const { digest, sizeBytes, storedAtMs } = blob;
    if (this.#exceeds(key.upstream, digest, sizeBytes, quota)) {
      return "over-quota";
    }
    const afterwards = this.beforeStored(blob);
    this.#tables.putBlob(blob);
    this.#roots.onBytesStored(digest);
    afterwards();
    this.#link(this.make(key), digest, storedAtMs);
    return "stored";
  }

  /** Called before a blob is stored. @returns a function to call afterwards; it links a blob that was lost */
  beforeStored({ digest, manifest }: BlobRecord): () => void {
    const isLost = manifest === undefined && !this.#tables.blobs.has(digest);
    return () => {
      if (!isLost) return;
      const parents = this.#tables
        .parentsOf(digest)
        .filter(
          (parent) =>
            parent.manifest?.children.get(digest)?.isForeign === false,
        );
      for (const repository of this.#tables.repositories.values()) {
        const isNamed = parents.some((parent) =>
          repository.hostedManifests.has(parent.digest),
        );
        if (isNamed) this.#link(repository, digest, undefined);
      }
    };
  }

  mountBlob(
    key: RepositoryKey,
    digest: Digest,
    from: RepositoryKey,
    atMs: number,
    quota: QuotaCondition,
  ): HostedBlobOutcome {
    const blob = this.#tables.blobs.get(digest);
    if (
      blob === undefined ||
      this.#tables.beingRemoved.has(digest) ||
      this.#tables.repository(from)?.links.has(digest) !== true
    ) {
      return "absent";
    }
    if (this.#exceeds(key.upstream, digest, blob.sizeBytes, quota)) {
      return "over-quota";
    }
    this.#link(this.make(key), digest, atMs);
    return "stored";
  }

  claimBlob(key: RepositoryKey, digest: Digest, atMs: number): boolean {
    const link = this.find(key)?.hostedLinks.get(digest);
    if (link === undefined) return false;
    link.claimedAtMs = Math.max(link.claimedAtMs ?? atMs, atMs);
    return true;
  }

  unlinkBlob(
    key: RepositoryKey,
    digest: Digest,
    isImmutable: ImmutableTags,
  ): HostedDeletion {
    const repository = this.find(key);
    if (
      repository?.hostedLinks.has(digest) !== true ||
      repository.hostedManifests.has(digest)
    ) {
      return { kind: "absent" };
    }
    const tag = this.#findImmutableAbove(repository, digest, isImmutable);
    if (tag !== undefined) return { kind: "immutable", tag };
    this.#dropLink(repository, digest);
    return { kind: "deleted", tags: [] };
  }

  #link(
    repository: StoredRepository,
    digest: Digest,
    claimedAtMs: number | undefined,
  ): void {
    if (!repository.links.has(digest)) repository.links.set(digest, undefined);
    const link = repository.hostedLinks.get(digest) ?? {
      claimedAtMs: undefined,
      isMarked: false,
    };
    repository.hostedLinks.set(digest, link);
    if (claimedAtMs !== undefined) {
      link.claimedAtMs = Math.max(link.claimedAtMs ?? claimedAtMs, claimedAtMs);
    }
    const { roots } = this.#tables.unclaimed;
    if (roots.get(digest)?.isPinned === false) roots.delete(digest);
  }

  #dropLink(repository: StoredRepository, digest: Digest): void {
    repository.unlink(digest);
    this.#roots.condemnUnheld(digest);
  }

  #exceeds(
    registry: string,
    digest: Digest,
    sizeBytes: number,
    { maxBytes, reservedBytes }: QuotaCondition,
  ): boolean {
    const content = this.contentOf(registry);
    return (
      sizeBytes > 0 &&
      !content.has(digest) &&
      this.bytesOf(content) + reservedBytes + sizeBytes > maxBytes
    );
  }

  // --- manifests -------------------------------------------------------------------------------

  putManifest(
    key: RepositoryKey,
    manifest: HostedManifestRecord,
    tags: readonly Tag[],
    conditions: ManifestConditions,
  ): HostedManifestOutcome {
    const { digest, sizeBytes, children } = manifest;
    const known = this.find(key);
    const missing = children.find(
      (child) =>
        !child.isForeign && known?.hostedLinks.has(child.digest) !== true,
    );
    if (missing !== undefined) {
      return { kind: "missing", digest: missing.digest };
    }
    const before = [...new Set(tags)].map((tag) => ({
      tag,
      before: known?.tags.get(tag)?.digest,
    }));
    const immutable = before.find(
      (each) =>
        each.before !== undefined &&
        each.before !== digest &&
        conditions.isImmutable(each.tag),
    );
    if (immutable !== undefined) {
      return { kind: "immutable", tag: immutable.tag };
    }
    if (this.#exceeds(key.upstream, digest, sizeBytes, conditions.quota)) {
      return { kind: "over-quota" };
    }
    this.#store(this.make(key), manifest, before);
    return { kind: "stored", tags: before };
  }

  #store(
    repository: StoredRepository,
    manifest: HostedManifestRecord,
    tags: readonly { readonly tag: Tag; readonly before: Digest | undefined }[],
  ): void {
    const { digest, mediaType, children, storedAtMs } = manifest;
    const stored = repository.hostedManifests.get(digest);
    const storedType =
      repository.links.get(digest) ??
      this.#tables.blobs.get(digest)?.manifest?.mediaType;
    if (stored === undefined || storedType !== mediaType) {
      this.#write(repository, manifest, stored?.untaggedAtMs);
    } else if (stored.untaggedAtMs !== undefined) {
      this.#tables.intents.delete(digest);
      stored.untaggedAtMs = Math.max(stored.untaggedAtMs, storedAtMs);
    }
    for (const settled of [digest, ...children.map((child) => child.digest)]) {
      const link = repository.hostedLinks.get(settled);
      if (link === undefined) continue;
      link.claimedAtMs = undefined;
      link.isMarked = false;
    }
    for (const { tag } of tags) {
      const row = repository.tags.get(tag);
      const isPinned =
        repository.takeLostPin({ kind: "tag", tag }) || row?.isPinned === true;
      repository.tags.set(tag, {
        digest,
        fetchedAtMs: storedAtMs,
        verifiedAtMs: storedAtMs,
        usedAtMs: row?.usedAtMs ?? storedAtMs,
        goneAtMs: undefined,
        isPinned,
        isHosted: true,
      });
    }
    this.#refresh(
      repository,
      [
        digest,
        ...tags.flatMap(({ before }) => before ?? []),
        ...this.#dependents(repository, digest),
      ],
      storedAtMs,
    );
  }

  /** Writes the rows of a manifest that the repository does not have under this media type. */
  #write(
    repository: StoredRepository,
    manifest: HostedManifestRecord,
    untaggedAtMs: number | undefined,
  ): void {
    const { digest, sizeBytes, mediaType, children, subject, storedAtMs } =
      manifest;
    const blob = this.#tables.putBlob({
      digest,
      sizeBytes,
      storedAtMs,
      manifest: { mediaType, children, subject },
    });
    this.#roots.onBytesStored(digest);
    this.#link(repository, digest, undefined);
    this.#tables.putLinkType(repository, blob, mediaType);
    const hasSubject = subject !== undefined;
    repository.hostedManifests.set(digest, {
      digest,
      untaggedAtMs: untaggedAtMs ?? storedAtMs,
      subject,
      artifactType: hasSubject ? manifest.artifactType : undefined,
      annotations: hasSubject ? manifest.annotations : undefined,
    });
  }

  deleteTag(
    key: RepositoryKey,
    tag: Tag,
    isImmutable: ImmutableTags,
    onlyIf?: Pick<HostedTag, "digest" | "pushedAtMs">,
  ): HostedDeletion {
    const repository = this.find(key);
    const row = repository?.tags.get(tag);
    if (
      repository === undefined ||
      row === undefined ||
      (onlyIf !== undefined &&
        (row.digest !== onlyIf.digest || row.fetchedAtMs !== onlyIf.pushedAtMs))
    ) {
      return { kind: "absent" };
    }
    if (isImmutable(tag)) return { kind: "immutable", tag };
    repository.tags.delete(tag);
    this.#refresh(repository, [row.digest]);
    return { kind: "deleted", tags: [tag] };
  }

  deleteManifest(
    key: RepositoryKey,
    digest: Digest,
    isImmutable: ImmutableTags,
    onlyIf?: Pick<UntaggedManifest, "untaggedAtMs">,
  ): HostedDeletion {
    const repository = this.find(key);
    const manifest = repository?.hostedManifests.get(digest);
    if (
      repository === undefined ||
      manifest === undefined ||
      (onlyIf !== undefined && manifest.untaggedAtMs !== onlyIf.untaggedAtMs)
    ) {
      return { kind: "absent" };
    }
    const immutable = this.#findImmutableAbove(repository, digest, isImmutable);
    if (immutable !== undefined) return { kind: "immutable", tag: immutable };
    const tags = tagsOf(repository, digest);
    const afterwards = this.#beforeManifestLeaves(repository, digest);
    for (const tag of tags) repository.tags.delete(tag);
    repository.roots.delete(digest);
    this.#dropLink(repository, digest);
    afterwards();
    return { kind: "deleted", tags };
  }

  /** Called before a blob whose bytes are gone is dropped. @returns a function to call afterwards */
  beforeForgotten(digest: Digest): () => void {
    const after = [...this.#tables.repositories.values()]
      .filter(({ hostedManifests }) => hostedManifests.has(digest))
      .map((repository) => this.#beforeManifestLeaves(repository, digest));
    return () => {
      for (const run of after) run();
    };
  }

  #beforeManifestLeaves(
    repository: StoredRepository,
    digest: Digest,
  ): () => void {
    const dependents = this.#dependents(repository, digest);
    for (const child of this.#childrenOf(digest)) {
      const link = repository.hostedLinks.get(child);
      if (link !== undefined) link.isMarked = true;
    }
    return () => {
      this.#refresh(repository, dependents);
    };
  }

  #childrenOf(digest: Digest): Digest[] {
    return [
      ...(this.#tables.blobs.get(digest)?.manifest?.children.keys() ?? []),
    ];
  }

  /** Returns manifests that the digest names, and those whose subject it is. */
  #dependents(
    { hostedManifests }: StoredRepository,
    digest: Digest,
  ): readonly Digest[] {
    return [
      ...this.#childrenOf(digest).filter((child) => hostedManifests.has(child)),
      ...[...hostedManifests.values()]
        .filter(({ subject }) => subject === digest)
        .map((manifest) => manifest.digest),
    ];
  }

  #refresh(
    repository: StoredRepository,
    digests: readonly Digest[],
    atMs = this.#clock.nowMs(),
  ): void {
    for (const digest of digests) {
      const manifest = repository.hostedManifests.get(digest);
      if (manifest === undefined) continue;
      manifest.untaggedAtMs = this.#isNeeded(repository, manifest)
        ? undefined
        : (manifest.untaggedAtMs ?? atMs);
    }
  }

  #isNeeded(
    repository: StoredRepository,
    { digest, subject }: HostedManifest,
  ): boolean {
    return (
      tagsOf(repository, digest).length > 0 ||
      this.#isNamed(repository, digest) ||
      (subject !== undefined && repository.hostedManifests.has(subject))
    );
  }

  #isNamed({ hostedManifests }: StoredRepository, digest: Digest): boolean {
    return this.#tables
      .parentsOf(digest)
      .some((parent) => hostedManifests.has(parent.digest));
  }

  #findImmutableAbove(
    repository: StoredRepository,
    digest: Digest,
    isImmutable: ImmutableTags,
  ): Tag | undefined {
    const seen = new Set([digest]);
    for (const each of seen) {
      const found = tagsOf(repository, each).find(isImmutable);
      if (found !== undefined) return found;
      for (const parent of this.#tables.parentsOf(each)) {
        if (repository.hostedManifests.has(parent.digest)) {
          seen.add(parent.digest);
        }
      }
    }
    return undefined;
  }

  // --- collection ------------------------------------------------------------------------------

  step(claimedBeforeMs: number, limit: number): CollectionStep {
    let examined = 0;
    let links = 0;
    for (const repository of this.#tables.repositories.values()) {
      for (const [digest, link] of repository.hostedLinks) {
        const { claimedAtMs = Infinity } = link;
        if (!link.isMarked && claimedAtMs >= claimedBeforeMs) continue;
        if (examined === limit) return { links, isEnd: false };
        examined++;
        const isNeeded =
          repository.hostedManifests.has(digest) ||
          this.#isNamed(repository, digest);
        link.isMarked = false;
        if (isNeeded) link.claimedAtMs = undefined;
        else if ((link.claimedAtMs ?? -Infinity) < claimedBeforeMs) {
          this.#dropLink(repository, digest);
          links++;
        }
      }
    }
    return { links, isEnd: examined < limit };
  }

  preview(claimedBeforeMs: number, limit: number): readonly CondemnedBlob[] {
    const restore = this.#tables.save();
    this.#tables.beingRemoved.clear();
    this.step(claimedBeforeMs, limit);
    const freed: CondemnedBlob[] = [];
    while (freed.length < limit) {
      const found = this.#roots.condemned(limit - freed.length, new Set());
      if (found.length === 0) break;
      freed.push(...found);
      for (const { digest } of found) this.#roots.forgetCondemned(digest);
    }
    restore();
    return freed;
  }
}

function tagsOf({ tags }: StoredRepository, digest: Digest): Tag[] {
  return [...tags]
    .filter(([, row]) => row.digest === digest)
    .map(([tag]) => tag)
    .sort();
}
