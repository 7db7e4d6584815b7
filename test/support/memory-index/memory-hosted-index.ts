import { type Digest, digestHex } from "../../../src/oci/digest.ts";
import type {
  RepositoryKey,
  RepositoryName,
  Tag,
} from "../../../src/oci/reference.ts";
import type { Referrer } from "../../../src/oci/referrers.ts";
import type { BlobRow, FillIntent } from "../../../src/storage/blob-index.ts";
import type { UploadId } from "../../../src/storage/blob-store.ts";
import type {
  CollectionStep,
  HostedBlobOutcome,
  HostedBlobRecord,
  HostedDeletion,
  HostedIndex,
  HostedManifestOutcome,
  HostedManifestRecord,
  HostedTag,
  ImmutableTags,
  ManifestConditions,
  QuotaCondition,
  ReferrerPage,
  UntaggedManifest,
  UploadRow,
} from "../../../src/storage/hosted-index.ts";
import type { CondemnedBlob } from "../../../src/storage/root-index.ts";
import type { MemoryHosted } from "./memory-hosted.ts";
import { blobRow, type MemoryTables, pathOf } from "./memory-tables.ts";
import type { MemoryParts, MemoryTransactions } from "./memory-transactions.ts";

/** The part of the index in memory for hosted repositories. */
export class MemoryHostedIndex implements HostedIndex {
  protected readonly hosted: MemoryHosted;
  readonly #tables: MemoryTables;
  readonly #transactions: MemoryTransactions;

  constructor({ tables, hosted, transactions }: MemoryParts) {
    this.#tables = tables;
    this.hosted = hosted;
    this.#transactions = transactions;
  }

  // --- blobs -----------------------------------------------------------------------------------

  recordHostedBlob(
    key: RepositoryKey,
    blob: HostedBlobRecord,
    quota: QuotaCondition,
  ): Promise<Exclude<HostedBlobOutcome, "absent">> {
    return this.#transactions.write(() =>
      this.hosted.recordBlob(key, blob, quota),
    );
  }

  beginHostedWrite(key: RepositoryKey, intent: FillIntent): Promise<void> {
    return this.#transactions.write(() => {
      this.#tables.makeRepository(key);
      this.#tables.intents.set(intent.digest, {
        ...intent,
        key,
        isHosted: true,
      });
    });
  }

  mountHostedBlob(
    key: RepositoryKey,
    digest: Digest,
    from: RepositoryKey,
    atMs: number,
    quota: QuotaCondition,
  ): Promise<HostedBlobOutcome> {
    return this.#transactions.write(() =>
      this.hosted.mountBlob(key, digest, from, atMs, quota),
    );
  }

  listBlobRepositories(
    digest: Digest,
    limit: number,
    last: RepositoryKey | undefined,
  ): Promise<readonly RepositoryKey[]> {
    return this.#transactions.read(() => {
      const repositories = [...this.#tables.repositories.values()];
      const after =
        last === undefined
          ? -1
          : repositories.findIndex(({ path }) => path === pathOf(last));
      if (last !== undefined && after === -1) return [];
      return repositories
        .slice(after + 1)
        .filter(({ links }) => links.has(digest))
        .slice(0, limit)
        .map(({ key }) => key);
    });
  }

  claimHostedBlob(
    key: RepositoryKey,
    digest: Digest,
    atMs: number,
  ): Promise<BlobRow | undefined> {
    return this.#transactions.write(() => {
      const blob = this.#tables.blobs.get(digest);
      return blob !== undefined && this.hosted.claimBlob(key, digest, atMs)
        ? blobRow(blob, this.hosted.find(key)?.links.get(digest))
        : undefined;
    });
  }

  unlinkHostedBlob(
    key: RepositoryKey,
    digest: Digest,
    isImmutable: ImmutableTags,
  ): Promise<HostedDeletion> {
    return this.#transactions.write(() =>
      this.hosted.unlinkBlob(key, digest, isImmutable),
    );
  }

  // --- manifests -------------------------------------------------------------------------------

  putHostedManifest(
    key: RepositoryKey,
    manifest: HostedManifestRecord,
    tags: readonly Tag[],
    conditions: ManifestConditions,
  ): Promise<HostedManifestOutcome> {
    return this.#transactions.write(() =>
      this.hosted.putManifest(key, manifest, tags, conditions),
    );
  }

  deleteHostedTag(
    key: RepositoryKey,
    tag: Tag,
    isImmutable: ImmutableTags,
    onlyIf?: Pick<HostedTag, "digest" | "pushedAtMs">,
  ): Promise<HostedDeletion> {
    return this.#transactions.write(() =>
      this.hosted.deleteTag(key, tag, isImmutable, onlyIf),
    );
  }

  deleteHostedManifest(
    key: RepositoryKey,
    digest: Digest,
    isImmutable: ImmutableTags,
    onlyIf?: Pick<UntaggedManifest, "untaggedAtMs">,
  ): Promise<HostedDeletion> {
    return this.#transactions.write(() =>
      this.hosted.deleteManifest(key, digest, isImmutable, onlyIf),
    );
  }

  listHostedReferrers(
    key: RepositoryKey,
    subject: Digest,
    page: ReferrerPage,
  ): Promise<readonly Referrer[]> {
    const { artifactTypes, limit, last } = page;
    return this.#transactions.read(() => {
      const repository = this.hosted.find(key);
      return [...(repository?.hostedManifests.values() ?? [])]
        .filter((manifest) => manifest.subject === subject)
        .filter(
          ({ artifactType }) =>
            artifactTypes.length === 0 ||
            (artifactType !== undefined &&
              artifactTypes.includes(artifactType)),
        )
        .filter(({ digest }) => isAfter(digest, last))
        .sort(byDigest)
        .slice(0, limit)
        .flatMap(({ digest, artifactType, annotations }) => {
          const blob = this.#tables.blobs.get(digest);
          const mediaType =
            repository?.links.get(digest) ?? blob?.manifest?.mediaType;
          if (blob === undefined || mediaType === undefined) return [];
          const { sizeBytes } = blob;
          return [{ digest, sizeBytes, mediaType, artifactType, annotations }];
        });
    });
  }

  listHostedTags(
    key: RepositoryKey,
    limit: number,
    last: Tag | undefined,
  ): Promise<readonly HostedTag[]> {
    return this.#transactions.read(() =>
      [...(this.hosted.find(key)?.tags ?? [])]
        .filter(([tag, { isHosted }]) => isHosted && tag > (last ?? ""))
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .slice(0, limit)
        .map(([tag, { digest, fetchedAtMs, usedAtMs }]) => ({
          tag,
          digest,
          pushedAtMs: fetchedAtMs,
          pulledAtMs: Math.max(usedAtMs, fetchedAtMs),
        })),
    );
  }

  listUntaggedManifests(
    key: RepositoryKey,
    limit: number,
    last: Digest | undefined,
  ): Promise<readonly UntaggedManifest[]> {
    return this.#transactions.read(() =>
      [...(this.hosted.find(key)?.hostedManifests.values() ?? [])]
        .filter(({ digest }) => isAfter(digest, last))
        .sort(byDigest)
        .flatMap(({ digest, untaggedAtMs }) => {
          const sizeBytes = this.#tables.blobs.get(digest)?.sizeBytes;
          return untaggedAtMs === undefined || sizeBytes === undefined
            ? []
            : [{ digest, sizeBytes, untaggedAtMs }];
        })
        .slice(0, limit),
    );
  }

  listHostedRepositories(
    registry: string,
    limit: number,
    last: RepositoryName | undefined,
  ): Promise<readonly RepositoryName[]> {
    return this.#transactions.read(() =>
      this.hosted
        .repositoriesOf(registry)
        .filter(({ hostedManifests }) => hostedManifests.size > 0)
        .map(({ key }) => key.repository)
        .filter((name) => name > (last ?? ""))
        .sort()
        .slice(0, limit),
    );
  }

  listHostedRegistries(): Promise<
    readonly { readonly registry: string; readonly bytes: number }[]
  > {
    return this.#transactions.read(() => {
      const names = new Set(
        [...this.#tables.repositories.values()]
          .filter(({ hostedLinks }) => hostedLinks.size > 0)
          .map(({ key }) => key.upstream),
      );
      return [...names].sort().map((registry) => ({
        registry,
        bytes: this.hosted.bytesOf(this.hosted.contentOf(registry)),
      }));
    });
  }

  // --- collection and uploads ------------------------------------------------------------------

  dropUnneededLinks(
    claimedBeforeMs: number,
    limit: number,
  ): Promise<CollectionStep> {
    return this.#transactions.write(() =>
      this.hosted.step(claimedBeforeMs, limit),
    );
  }

  previewCollection(
    claimedBeforeMs: number,
    limit: number,
  ): Promise<readonly CondemnedBlob[]> {
    return this.#transactions.read(() =>
      this.hosted.preview(claimedBeforeMs, limit),
    );
  }

  putUpload(upload: UploadRow): Promise<void> {
    return this.#transactions.write(() => {
      this.hosted.make(upload.key);
      const earlier = this.#tables.uploads.get(upload.id);
      this.#tables.uploads.set(upload.id, {
        ...(earlier ?? upload),
        touchedAtMs: upload.touchedAtMs,
      });
    });
  }

  getUpload(id: UploadId): Promise<UploadRow | undefined> {
    return this.#transactions.read(() => this.#tables.uploads.get(id));
  }

  dropUpload(id: UploadId): Promise<void> {
    return this.#transactions.write(() => {
      this.#tables.uploads.delete(id);
    });
  }

  listUploads(
    limit: number,
    last: UploadId | undefined,
  ): Promise<readonly UploadRow[]> {
    return this.#transactions.read(() =>
      [...this.#tables.uploads.values()]
        .filter(({ id }) => id > (last ?? ""))
        .sort((a, b) => (a.id < b.id ? -1 : 1))
        .slice(0, limit),
    );
  }
}

function isAfter(digest: Digest, last: Digest | undefined): boolean {
  return last === undefined || digestHex(digest) > digestHex(last);
}

function byDigest(
  a: { readonly digest: Digest },
  b: { readonly digest: Digest },
): number {
  return digestHex(a.digest) < digestHex(b.digest) ? -1 : 1;
}
