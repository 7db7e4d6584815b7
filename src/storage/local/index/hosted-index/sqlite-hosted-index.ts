import type { Digest } from "../../../../oci/digest.ts";
import type {
  RepositoryKey,
  RepositoryName,
  Tag,
} from "../../../../oci/reference.ts";
import type { Referrer } from "../../../../oci/referrers.ts";
import type { BlobRow, FillIntent } from "../../../blob-index.ts";
import type { UploadId } from "../../../blob-store.ts";
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
} from "../../../hosted-index.ts";
import type { CondemnedBlob } from "../../../root-index.ts";
import { blobRow } from "../blob-rows.ts";
import { bytesOf, pathOf } from "../index-keys.ts";
import { SqliteDocumentIndex } from "../documents/sqlite-document-index.ts";
import type { HostedParts, IndexParts } from "../index-parts.ts";
import type { Changed } from "../root-changes.ts";
import type { IndexTransactions } from "../index-transactions.ts";

/** The part of the SQLite index for hosted repositories. */
export class SqliteHostedIndex
  extends SqliteDocumentIndex
  implements HostedIndex
{
  readonly #parts: IndexParts;
  readonly #hosted: HostedParts;
  readonly #transactions: IndexTransactions;

  constructor(parts: IndexParts) {
    super(parts);
    this.#parts = parts;
    this.#hosted = parts.hosted;
    this.#transactions = parts.transactions;
  }

  // --- blobs -----------------------------------------------------------------------------------

  beginHostedWrite(key: RepositoryKey, blob: FillIntent): Promise<void> {
    const { rows, intents } = this.#parts;
    return this.#transactions.writeUnread("beginHostedWrite", () => {
      intents.put(
        rows.digestId(blob.digest),
        this.#hosted.writes.rows.makeRepository(key),
        blob.sizeBytes,
        blob.mediaType === undefined ? null : rows.mediaTypeId(blob.mediaType),
      );
    });
  }

  recordHostedBlob(
    key: RepositoryKey,
    blob: HostedBlobRecord,
    quota: QuotaCondition,
  ): Promise<Exclude<HostedBlobOutcome, "absent">> {
    return this.#link("recordHostedBlob", key, blob.digest, () =>
      this.#hosted.writes.recordBlob(key, blob, quota),
    );
  }

  mountHostedBlob(
    key: RepositoryKey,
    digest: Digest,
    from: RepositoryKey,
    atMs: number,
    quota: QuotaCondition,
  ): Promise<HostedBlobOutcome> {
    return this.#link("mountHostedBlob", key, digest, () =>
      this.#hosted.writes.mountBlob(key, digest, from, atMs, quota),
    );
  }

  /** Links a blob. Only if the journal has its deletion, a line is needed. */
  async #link<T extends HostedBlobOutcome>(
    method: string,
    key: RepositoryKey,
    digest: Digest,
    work: () => Changed<T>,
  ): Promise<T> {
    const { durable, unlinked } = this.#hosted;
    const outcome = await durable.write(method, () =>
      unlinked.has(key, digest) ? undefined : work().result,
    );
    return outcome ?? durable.change(method, key, work);
  }

  listBlobRepositories(
    digest: Digest,
    limit: number,
    last: RepositoryKey | undefined,
  ): Promise<readonly RepositoryKey[]> {
    return this.#transactions.read("listBlobRepositories", () =>
      this.#hosted.lists.blobRepositories(digest, limit, last),
    );
  }

  claimHostedBlob(
    key: RepositoryKey,
    digest: Digest,
    atMs: number,
  ): Promise<BlobRow | undefined> {
    return this.#transactions.writeUnread("claimHostedBlob", () =>
      this.#hosted.writes.claimBlob(key, digest, atMs)
        ? blobRow(
            digest,
            this.#parts.statements.getLinkedBlob.get(
              pathOf(key),
              bytesOf(digest),
            ),
          )
        : undefined,
    );
  }

  unlinkHostedBlob(
    key: RepositoryKey,
    digest: Digest,
    isImmutable: ImmutableTags,
  ): Promise<HostedDeletion> {
    return this.#hosted.durable.change("unlinkHostedBlob", key, () =>
      this.#hosted.writes.unlinkBlob(key, digest, isImmutable),
    );
  }

  // --- manifests -------------------------------------------------------------------------------

  putHostedManifest(
    key: RepositoryKey,
    manifest: HostedManifestRecord,
    tags: readonly Tag[],
    conditions: ManifestConditions,
  ): Promise<HostedManifestOutcome> {
    return this.#hosted.durable.change("putHostedManifest", key, () =>
      this.#hosted.writes.putManifest(key, manifest, tags, conditions),
    );
  }

  deleteHostedTag(
    key: RepositoryKey,
    tag: Tag,
    isImmutable: ImmutableTags,
    onlyIf?: Pick<HostedTag, "digest" | "pushedAtMs">,
  ): Promise<HostedDeletion> {
    return this.#hosted.durable.change("deleteHostedTag", key, () =>
      this.#hosted.writes.deleteTag(key, tag, isImmutable, onlyIf),
    );
  }

  deleteHostedManifest(
    key: RepositoryKey,
    digest: Digest,
    isImmutable: ImmutableTags,
    onlyIf?: Pick<UntaggedManifest, "untaggedAtMs">,
  ): Promise<HostedDeletion> {
    return this.#hosted.durable.change("deleteHostedManifest", key, () =>
      this.#hosted.writes.deleteManifest(key, digest, isImmutable, onlyIf),
    );
  }

  listHostedReferrers(
    key: RepositoryKey,
    subject: Digest,
    page: ReferrerPage,
  ): Promise<readonly Referrer[]> {
    return this.#transactions.read("listHostedReferrers", () =>
      this.#hosted.lists.referrers(key, subject, page),
    );
  }

  listHostedTags(
    key: RepositoryKey,
    limit: number,
    last: Tag | undefined,
  ): Promise<readonly HostedTag[]> {
    return this.#transactions.read("listHostedTags", () =>
      this.#hosted.lists.tags(key, limit, last),
    );
  }

  listUntaggedManifests(
    key: RepositoryKey,
    limit: number,
    last: Digest | undefined,
  ): Promise<readonly UntaggedManifest[]> {
    return this.#transactions.read("listUntaggedManifests", () =>
      this.#hosted.lists.untagged(key, limit, last),
    );
  }

  listHostedRepositories(
    registry: string,
    limit: number,
    last: RepositoryName | undefined,
  ): Promise<readonly RepositoryName[]> {
    return this.#transactions.read("listHostedRepositories", () =>
      this.#hosted.lists.repositories(registry, limit, last),
    );
  }

  listHostedRegistries(): Promise<
    readonly { readonly registry: string; readonly bytes: number }[]
  > {
    return this.#transactions.read("listHostedRegistries", () =>
      this.#hosted.lists.registries(),
    );
  }

  // --- collection ------------------------------------------------------------------------------

  dropUnneededLinks(
    claimedBeforeMs: number,
    limit: number,
    deletedBeforeMs?: number,
  ): Promise<CollectionStep> {
    return this.#transactions.write("dropUnneededLinks", () =>
      this.#hosted.collector.step(claimedBeforeMs, limit, deletedBeforeMs),
    );
  }

  previewCollection(
    claimedBeforeMs: number,
    limit: number,
  ): Promise<readonly CondemnedBlob[]> {
    return this.#transactions.rehearse("previewCollection", () => {
      this.#hosted.collector.step(claimedBeforeMs, limit);
      return this.#hosted.collector.free(limit);
    });
  }

  // --- uploads ---------------------------------------------------------------------------------

  putUpload(upload: UploadRow): Promise<void> {
    return this.#transactions.writeUnread("putUpload", () => {
      this.#hosted.uploads.put(
        upload,
        this.#hosted.writes.rows.makeRepository(upload.key),
      );
    });
  }

  getUpload(id: UploadId): Promise<UploadRow | undefined> {
    return this.#transactions.read("getUpload", () =>
      this.#hosted.uploads.get(id),
    );
  }

  dropUpload(id: UploadId): Promise<void> {
    return this.#transactions.writeUnread("dropUpload", () => {
      this.#hosted.uploads.drop(id);
    });
  }

  listUploads(
    limit: number,
    last: UploadId | undefined,
  ): Promise<readonly UploadRow[]> {
    return this.#transactions.read("listUploads", () =>
      this.#hosted.uploads.list(limit, last),
    );
  }
}
