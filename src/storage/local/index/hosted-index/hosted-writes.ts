import type { Digest } from "../../../../oci/digest.ts";
import type { RepositoryKey, Tag } from "../../../../oci/reference.ts";
import type {
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
} from "../../../hosted-index.ts";
import type { RootChange } from "../../upkeep/roots-journal.ts";
import type { BlobRows } from "../blob-rows.ts";
import { bytesOf, digestFrom, pathOf } from "../index-keys.ts";
import type { IndexStatements } from "../index-statements.ts";
import { type Changed, gone } from "../root-changes.ts";
import type { SqliteRoots } from "../sqlite-roots.ts";
import { HostedRows } from "./hosted-rows.ts";
import type { HostedStatements, LinkId } from "./hosted-statements.ts";
import type { UnlinkedBlobs } from "./unlinked-blobs.ts";

export interface HostedWritesParts {
  readonly hosted: HostedStatements;
  readonly unlinked: UnlinkedBlobs;
  readonly statements: IndexStatements;
  readonly rows: BlobRows;
  readonly roots: SqliteRoots;
  readonly nowMs: () => number;
}

type TagsBefore = Extract<HostedManifestOutcome, { kind: "stored" }>["tags"];

/**
 * The writes of hosted repositories. Each evaluates its conditions and changes nothing if one is not
 * met. Runs in the caller's transactions, which may be rolled back; returns the names that change.
 */
export class HostedWrites {
  readonly rows: HostedRows;
  readonly #hosted: HostedStatements;
  readonly #unlinked: UnlinkedBlobs;
  readonly #statements: IndexStatements;
  readonly #blobRows: BlobRows;
  readonly #roots: SqliteRoots;
  readonly #nowMs: () => number;

  constructor(parts: HostedWritesParts) {
    const { hosted, unlinked, statements, rows, roots, nowMs } = parts;
    this.#hosted = hosted;
    this.#unlinked = unlinked;
    this.#statements = statements;
    this.#blobRows = rows;
    this.#roots = roots;
    this.#nowMs = nowMs;
    this.rows = new HostedRows(hosted, statements, rows, nowMs);
  }

  // --- blobs -----------------------------------------------------------------------------------

  recordBlob(
    key: RepositoryKey,
    blob: HostedBlobRecord,
    quota: QuotaCondition,
  ): Changed<Exclude<HostedBlobOutcome, "absent">> {
    const { digest, sizeBytes, storedAtMs } = blob;
    if (this.rows.exceedsQuota(key.upstream, digest, sizeBytes, quota)) {
      return unchanged("over-quota");
    }
    const afterwards = this.rows.beforeStored(blob);
    const blobId = this.#blobRows.putBlob(blob);
    this.#roots.onBytesStored(blobId);
    afterwards(blobId);
    const repositoryId = this.rows.makeRepository(key);
    this.rows.putLink({ blobId, repositoryId }, storedAtMs);
    const link = { key, repositoryId, digest };
    return {
      result: "stored",
      changes: this.#unlinked.onLinked(link, this.#nowMs()),
    };
  }

  mountBlob(
    key: RepositoryKey,
    digest: Digest,
    from: RepositoryKey,
    atMs: number,
    quota: QuotaCondition,
  ): Changed<HostedBlobOutcome> {
    const blob = this.#hosted.findUsableBlob.get(bytesOf(digest));
    if (
      blob === undefined ||
      this.#hosted.isLinked.get(blob.id, pathOf(from)) === undefined
    ) {
      return unchanged("absent");
    }
    if (this.rows.exceedsQuota(key.upstream, digest, blob.sizeBytes, quota)) {
      return unchanged("over-quota");
    }
    const repositoryId = this.rows.makeRepository(key);
    this.rows.putLink({ blobId: blob.id, repositoryId }, atMs);
    const link = { key, repositoryId, digest };
    return {
      result: "stored",
      changes: this.#unlinked.onLinked(link, this.#nowMs()),
    };
  }

  /** @returns whether the blob is linked */
  claimBlob(key: RepositoryKey, digest: Digest, atMs: number): boolean {
    const { changes } = this.#hosted.claimLink.run(
      atMs,
      bytesOf(digest),
      pathOf(key),
    );
    return changes > 0;
  }

  unlinkBlob(
    key: RepositoryKey,
    digest: Digest,
    isImmutable: ImmutableTags,
  ): Changed<HostedDeletion> {
    const repositoryId = this.rows.findRepository(key);
    const link =
      repositoryId === undefined
        ? undefined
        : this.#hosted.findLink.get(bytesOf(digest), repositoryId);
    // A manifest is deleted by its own request.
    if (link === undefined || this.#hosted.isManifest.get(link) !== undefined) {
      return unchanged({ kind: "absent" });
    }
    const tag = this.rows.findImmutableAbove(link, isImmutable);
    if (tag !== undefined) return unchanged({ kind: "immutable", tag });
    const changes = this.#unlinked.onUnlink(key, link, digest, this.#nowMs());
    this.#dropLink(link);
    return { result: { kind: "deleted", tags: [] }, changes };
  }

  /** Drops a link; condemns the blob if nothing else holds it. */
  #dropLink({ blobId, repositoryId }: LinkId): void {
    this.#hosted.deleteLink.run(blobId, repositoryId);
    this.#roots.condemnUnheld(blobId);
  }

  // --- manifests -------------------------------------------------------------------------------

  putManifest(
    key: RepositoryKey,
    manifest: HostedManifestRecord,
    tags: readonly Tag[],
    conditions: ManifestConditions,
  ): Changed<HostedManifestOutcome> {
    const known = this.rows.findRepository(key);
    const missing = this.#findMissing(known, manifest);
    if (missing !== undefined) {
      return unchanged({ kind: "missing", digest: missing });
    }
    const before = this.#tagsBefore(known, tags);
    const { digest, sizeBytes } = manifest;
    const immutable = before.find(
      (each) =>
        each.before !== undefined &&
        each.before !== digest &&
        conditions.isImmutable(each.tag),
    );
    if (immutable !== undefined) {
      return unchanged({ kind: "immutable", tag: immutable.tag });
    }
    const { quota } = conditions;
    if (this.rows.exceedsQuota(key.upstream, digest, sizeBytes, quota)) {
      return unchanged({ kind: "over-quota" });
    }
    const changes = this.#storeManifest(key, manifest, before);
    return { result: { kind: "stored", tags: before }, changes };
  }

  /** Stores a manifest of the journal without conditions. */
  restoreManifest(key: RepositoryKey, manifest: HostedManifestRecord): void {
    this.#storeManifest(key, manifest, []);
  }

  #findMissing(
    repositoryId: number | undefined,
    { children }: HostedManifestRecord,
  ): Digest | undefined {
    return children.find(
      ({ digest, isForeign }) =>
        !isForeign && !this.rows.isLinked(repositoryId, digest),
    )?.digest;
  }

  #tagsBefore(
    repositoryId: number | undefined,
    tags: readonly Tag[],
  ): TagsBefore {
    return [...new Set(tags)].map((tag) => {
      const row =
        repositoryId === undefined
          ? undefined
          : this.#hosted.getTag.get(repositoryId, tag);
      return { tag, before: row && digestFrom(row.digest) };
    });
  }

  #storeManifest(
    key: RepositoryKey,
    manifest: HostedManifestRecord,
    tags: TagsBefore,
  ): readonly RootChange[] {
    const { digest, storedAtMs: atMs, mediaType } = manifest;
    const repositoryId = this.rows.makeRepository(key);
    const stored = this.#hosted.getManifest.get(bytesOf(digest), repositoryId);
    const isStored = stored?.mediaType === mediaType;
    const blobId = isStored
      ? stored.blobId
      : this.#writeManifest(repositoryId, manifest);
    const link = { blobId, repositoryId };
    if (isStored) this.#blobRows.settleIntent(digest);
    if (isStored && stored.untaggedAtMs !== null) {
      const untaggedAtMs = Math.max(stored.untaggedAtMs, atMs);
      this.#hosted.setUntagged.run({ ...link, atMs: untaggedAtMs });
    }
    this.#hosted.settleLinks.run(link);
    const left = this.#putTags(link, tags, digest, atMs);
    this.rows.refreshUntagged(
      isStored
        ? [link, ...left]
        : [link, ...left, ...this.#hosted.listDependents.all(link)],
      atMs,
    );
    const change = { key, digest, mediaType, isPinned: false, atMs };
    return [
      ...this.#unlinked.onLinked({ key, repositoryId, digest }, atMs),
      ...(isStored
        ? []
        : [{ ...change, reference: { kind: "digest", digest } as const }]),
      // Also if the tag had this digest: the line has the time of the push.
      ...tags.map(({ tag }) => ({
        ...change,
        reference: { kind: "tag", tag } as const,
        isPinned: this.#roots.isTagPinned(key, tag),
      })),
    ];
  }

  /** Writes the rows of a manifest that the repository does not have under this media type. */
  #writeManifest(repositoryId: number, manifest: HostedManifestRecord): number {
    const { digest, sizeBytes, storedAtMs, mediaType, children } = manifest;
    const { subject, artifactType = null, annotations } = manifest;
    const blobId = this.#blobRows.putBlob({
      digest,
      sizeBytes,
      storedAtMs,
      manifest: { mediaType, children, subject },
    });
    this.#roots.onBytesStored(blobId);
    const link = { blobId, repositoryId };
    this.rows.putLink(link, null);
    this.#statements.putLinkType.run({
      ...link,
      mediaTypeId: this.#blobRows.mediaTypeId(mediaType),
    });
    const hasSubject = subject !== undefined;
    this.#hosted.putManifest.run({
      ...link,
      digest: bytesOf(digest),
      atMs: storedAtMs,
      subjectId: hasSubject ? this.#blobRows.digestId(subject) : null,
      artifactType: hasSubject ? artifactType : null,
      annotations:
        hasSubject && annotations !== undefined
          ? JSON.stringify(annotations)
          : null,
    });
    return blobId;
  }

  /** @returns the manifests that tags pointed to before */
  #putTags(
    link: LinkId,
    tags: TagsBefore,
    digest: Digest,
    atMs: number,
  ): readonly LinkId[] {
    const { repositoryId } = link;
    const left: LinkId[] = [];
    for (const { tag, before } of tags) {
      if (before !== undefined && before !== digest) {
        const manifest = this.#hosted.getTag.get(repositoryId, tag);
        if (manifest !== undefined) {
          left.push({ blobId: manifest.manifestId, repositoryId });
        }
      }
      this.#hosted.putTag.run({ ...link, tag, atMs });
      if (this.#roots.takeLostPin(repositoryId, tag)) {
        this.#hosted.pinTag.run(repositoryId, tag);
      }
    }
    return left;
  }

  deleteTag(
    key: RepositoryKey,
    tag: Tag,
    isImmutable: ImmutableTags,
    onlyIf?: Pick<HostedTag, "digest" | "pushedAtMs">,
  ): Changed<HostedDeletion> {
    const repositoryId = this.rows.findRepository(key);
    const row =
      repositoryId === undefined
        ? undefined
        : this.#hosted.getTag.get(repositoryId, tag);
    if (
      repositoryId === undefined ||
      row === undefined ||
      (onlyIf !== undefined &&
        (digestFrom(row.digest) !== onlyIf.digest ||
          row.pushedAtMs !== onlyIf.pushedAtMs))
    ) {
      return unchanged({ kind: "absent" });
    }
    if (isImmutable(tag)) return unchanged({ kind: "immutable", tag });
    this.#hosted.deleteTag.run(repositoryId, tag);
    this.rows.refreshUntagged([{ blobId: row.manifestId, repositoryId }]);
    return {
      result: { kind: "deleted", tags: [tag] },
      changes: [this.#now(gone(key, { kind: "tag", tag }))],
    };
  }

  deleteManifest(
    key: RepositoryKey,
    digest: Digest,
    isImmutable: ImmutableTags,
    onlyIf?: Pick<UntaggedManifest, "untaggedAtMs">,
  ): Changed<HostedDeletion> {
    const repositoryId = this.rows.findRepository(key);
    const row =
      repositoryId === undefined
        ? undefined
        : this.#hosted.getManifest.get(bytesOf(digest), repositoryId);
    if (
      repositoryId === undefined ||
      row === undefined ||
      (onlyIf !== undefined && row.untaggedAtMs !== onlyIf.untaggedAtMs)
    ) {
      return unchanged({ kind: "absent" });
    }
    const link = { blobId: row.blobId, repositoryId };
    const immutable = this.rows.findImmutableAbove(link, isImmutable);
    if (immutable !== undefined) {
      return unchanged({ kind: "immutable", tag: immutable });
    }
    const tags = this.rows.tagsOf(link);
    const unneeded = this.#unlinked.listOnlyNamedBy(link);
    const afterwards = this.rows.beforeManifestLeaves(link);
    this.#hosted.deleteTagsOf.run(link);
    this.#hosted.deletePinnedRoot.run(link.blobId, repositoryId);
    this.#dropLink(link);
    afterwards();
    return {
      result: { kind: "deleted", tags },
      changes: [
        ...tags.map((tag) => gone(key, { kind: "tag", tag })),
        gone(key, { kind: "digest", digest }),
        ...unneeded.flatMap((blob) =>
          this.#unlinked.onLinked({ key, repositoryId, digest: blob }, 0),
        ),
      ].map((change) => this.#now(change)),
    };
  }

  // --- collection ------------------------------------------------------------------------------

  /** Drops the link of a blob that no manifest of the repository names. */
  dropUnneeded(link: LinkId): void {
    this.#dropLink(link);
  }

  #now(change: RootChange): RootChange {
    return { ...change, atMs: this.#nowMs() };
  }
}

function unchanged<T>(result: T): Changed<T> {
  return { result, changes: [] };
}
