import type { Digest } from "../../../src/oci/digest.ts";
import type { RepositoryKey, Tag } from "../../../src/oci/reference.ts";
import type {
  BlobRecord,
  BlobRow,
  FillIntent,
  NotedIntent,
} from "../../../src/storage/blob-index.ts";
import type {
  ReferrersRow,
  TagListRow,
} from "../../../src/storage/list-index.ts";
import type {
  IndexTotals,
  MetadataIndex,
} from "../../../src/storage/metadata-index.ts";
import type {
  KeptRecord,
  RecordKind,
} from "../../../src/storage/kept-records.ts";
import type { TagRow } from "../../../src/storage/tag-index.ts";
import type { MemoryLists } from "./memory-lists.ts";
import { MemoryRootIndex } from "./memory-root-index.ts";
import type { MemoryRoots } from "./memory-roots.ts";
import { blobRow, type MemoryTables, pathOf } from "./memory-tables.ts";
import {
  createMemoryParts,
  type MemoryParts,
  type MemoryTransactions,
} from "./memory-transactions.ts";

/** A metadata index in memory: the reference for a second implementation. Slow on purpose, and short. */
export class MemoryMetadataIndex
  extends MemoryRootIndex
  implements MetadataIndex
{
  readonly #tables: MemoryTables;
  readonly #roots: MemoryRoots;
  readonly #lists: MemoryLists;
  readonly #transactions: MemoryTransactions;

  constructor(parts: MemoryParts = createMemoryParts()) {
    super(parts);
    this.#tables = parts.tables;
    this.#roots = parts.roots;
    this.#lists = parts.lists;
    this.#transactions = parts.transactions;
  }

  // --- blobs, links and intents ----------------------------------------------------------------

  getLinkedBlob(key: RepositoryKey, digest: Digest) {
    return this.#transactions.read(() => {
      const repository = this.#tables.repository(key);
      const blob = this.#tables.blobs.get(digest);
      if (blob === undefined || repository?.links.has(digest) !== true) {
        return undefined;
      }
      const row = blobRow(blob, repository.links.get(digest));
      this.#transactions.recentBlobs.set(`${pathOf(key)}@${digest}`, row);
      return row;
    });
  }

  recallLinkedBlob(key: RepositoryKey, digest: Digest): BlobRow | undefined {
    return this.#transactions.recentBlobs.get(`${pathOf(key)}@${digest}`);
  }

  getBlob(digest: Digest): Promise<BlobRow | undefined> {
    return this.#transactions.read(() => {
      const blob = this.#tables.blobs.get(digest);
      return blob && blobRow(blob, undefined);
    });
  }

  getUpstreamBlob(
    upstream: string,
    digest: Digest,
  ): Promise<BlobRow | undefined> {
    return this.#transactions.read(() => {
      const blob = this.#tables.blobs.get(digest);
      for (const { key, links } of this.#tables.repositories.values()) {
        if (key.upstream === upstream && blob && links.has(digest)) {
          return blobRow(blob, links.get(digest));
        }
      }
      return undefined;
    });
  }

  link(key: RepositoryKey, digest: Digest, mediaType?: string): Promise<void> {
    return this.#transactions.write(() => {
      const blob = this.#tables.blobs.get(digest);
      if (blob === undefined) return;
      const repository = this.#tables.makeRepository(key);
      const isNew = !repository.links.has(digest);
      if (isNew) repository.links.set(digest, undefined);
      if (mediaType !== undefined) {
        this.#tables.putLinkType(repository, blob, mediaType);
      }
      this.#roots.onManifestLinked(digest, repository, blob.usedAtMs);
      if (!isNew) return;
      this.#roots.onManifest(blob);
      this.#roots.onStored(digest, repository, blob.usedAtMs);
    });
  }

  listRepositories(
    limit: number,
    last: string | undefined,
  ): Promise<readonly RepositoryKey[]> {
    return this.#transactions.read(() =>
      this.#lists.linkedRepositories(limit, last),
    );
  }

  beginFill(key: RepositoryKey, intent: FillIntent): Promise<void> {
    return this.#transactions.write(() => {
      this.#tables.makeRepository(key);
      this.#tables.intents.set(intent.digest, { ...intent, key });
    });
  }

  dropIntent(digest: Digest): Promise<void> {
    return this.#transactions.write(() => {
      this.#tables.intents.delete(digest);
    });
  }

  listIntents(): Promise<readonly NotedIntent[]> {
    return this.#transactions.read(() => [...this.#tables.intents.values()]);
  }

  recordBlob(key: RepositoryKey, record: BlobRecord): Promise<void> {
    return this.#transactions.write(() => {
      const { digest, storedAtMs, manifest } = record;
      const afterwards = this.hosted.beforeStored(record);
      const blob = this.#tables.putBlob(record);
      afterwards();
      this.#roots.onBytesStored(digest);
      const repository = this.#tables.makeRepository(key);
      if (!repository.links.has(digest)) {
        repository.links.set(digest, undefined);
      }
      if (manifest !== undefined) {
        this.#tables.putLinkType(repository, blob, manifest.mediaType);
        this.#roots.onManifest(blob);
        this.#roots.onManifestLinked(digest, repository, storedAtMs);
      }
      this.#roots.onStored(digest, repository, storedAtMs);
    });
  }

  adoptBlob(record: BlobRecord): Promise<void> {
    return this.#transactions.write(() => {
      const afterwards = this.hosted.beforeStored(record);
      const blob = this.#tables.putBlob(record);
      afterwards();
      if (record.manifest !== undefined && blob.manifest !== undefined) {
        blob.manifest.mediaType = record.manifest.mediaType;
        this.#roots.onManifest(blob);
      }
      this.#roots.onAdopted(record.digest, record.storedAtMs);
    });
  }

  noteVerified(digests: readonly Digest[], atMs: number): Promise<void> {
    return this.#transactions.write(() => {
      for (const digest of digests) {
        const blob = this.#tables.blobs.get(digest);
        if (blob !== undefined) {
          blob.verifiedAtMs = Math.max(blob.verifiedAtMs, atMs);
        }
      }
    });
  }

  forgetBlob(digest: Digest): Promise<void> {
    return this.#transactions.write(() => {
      const afterwards = this.hosted.beforeForgotten(digest);
      this.#roots.forget(digest);
      this.#tables.intents.delete(digest);
      afterwards();
    });
  }

  // --- tags ------------------------------------------------------------------------------------

  getTag(key: RepositoryKey, tag: Tag): Promise<TagRow | undefined> {
    return this.#transactions.read(() => {
      const repository = this.#tables.repository(key);
      const stored = repository?.tags.get(tag);
      const blob = stored && this.#tables.blobs.get(stored.digest);
      if (stored === undefined || blob?.manifest === undefined) {
        return undefined;
      }
      const { usedAtMs: _, isHosted: __, ...columns } = stored;
      const row: TagRow = {
        ...columns,
        sizeBytes: blob.sizeBytes,
        mediaType:
          repository?.links.get(stored.digest) ?? blob.manifest.mediaType,
      };
      this.#transactions.recentTags.set(`${pathOf(key)}:${tag}`, row);
      return row;
    });
  }

  recallTag(key: RepositoryKey, tag: Tag): TagRow | undefined {
    return this.#transactions.recentTags.get(`${pathOf(key)}:${tag}`);
  }

  putTag(
    key: RepositoryKey,
    tag: Tag,
    digest: Digest,
    verifiedAtMs: number,
    seenAtMs: number = verifiedAtMs,
  ): Promise<void> {
    return this.#transactions.write(() => {
      const repository = this.#tables.makeRepository(key);
      const times = { verifiedAtMs, seenAtMs };
      this.#roots.putTag(repository, tag, digest, times);
    });
  }

  removeTag(key: RepositoryKey, tag: Tag): Promise<void> {
    return this.#transactions.writeTo(key, undefined, (repository) => {
      this.#roots.removeTag(repository, tag);
    });
  }

  markTagGone(key: RepositoryKey, tag: Tag, goneAtMs: number): Promise<void> {
    return this.#transactions.writeTo(key, undefined, ({ tags }) => {
      const stored = tags.get(tag);
      if (stored !== undefined) stored.goneAtMs = goneAtMs;
    });
  }

  listTags(
    key: RepositoryKey,
    limit: number,
    last: string | undefined,
  ): Promise<readonly Tag[]> {
    return this.#transactions.read(() =>
      [...(this.#tables.repository(key)?.tags.keys() ?? [])]
        .filter((tag) => tag > (last ?? ""))
        .sort()
        .slice(0, limit),
    );
  }

  // --- stored lists ----------------------------------------------------------------------------

  getReferrers(
    key: RepositoryKey,
    subject: Digest,
  ): Promise<ReferrersRow | undefined> {
    return this.#transactions.read(() =>
      this.#tables.repository(key)?.referrers.get(subject),
    );
  }

  putReferrers(
    key: RepositoryKey,
    subject: Digest,
    row: ReferrersRow,
  ): Promise<boolean> {
    return this.#transactions.writeTo(key, false, ({ links, referrers }) => {
      if (!links.has(subject)) return false;
      referrers.set(subject, row);
      return true;
    });
  }

  getTagList(key: RepositoryKey): Promise<TagListRow | undefined> {
    return this.#transactions.read(() => this.#tables.repository(key)?.tagList);
  }

  putTagList(key: RepositoryKey, row: TagListRow): Promise<boolean> {
    return this.#transactions.writeTo(key, false, (repository) => {
      if (repository.links.size === 0) return false;
      repository.tagList = row;
      return true;
    });
  }

  dropTagList(key: RepositoryKey): Promise<void> {
    return this.#transactions.writeTo(key, undefined, (repository) => {
      repository.tagList = undefined;
    });
  }

  // --- documents of services -------------------------------------------------------------------

  writeRecords(
    kind: RecordKind,
    put: readonly KeptRecord[],
    drop: readonly string[],
  ): Promise<void> {
    return this.#transactions.read(() => {
      const records = this.#tables.records[kind];
      for (const { id, text } of put) records.set(id, text);
      for (const id of drop) records.delete(id);
    });
  }

  listRecords(
    kind: RecordKind,
    limit: number,
    last: string | undefined,
  ): Promise<readonly KeptRecord[]> {
    return this.#transactions.read(() =>
      [...this.#tables.records[kind]]
        .map(([id, text]) => ({ id, text }))
        .filter(({ id }) => id > (last ?? ""))
        .sort((one, other) => (one.id < other.id ? -1 : 1))
        .slice(0, limit),
    );
  }

  // --- state -------------------------------------------------------------------------------------

  totals(): Promise<IndexTotals> {
    return this.#transactions.read(() => {
      const kept = [...this.#tables.blobs.values()].filter(
        ({ digest }) => !this.#tables.condemned.has(digest),
      );
      const repositories = [...this.#tables.repositories.values()];
      const lists = repositories.flatMap(({ referrers, tagList }) => [
        ...referrers.values(),
        ...(tagList === undefined ? [] : [tagList]),
      ]);
      return {
        blobs: kept.length,
        blobBytes: sum(kept.map(({ sizeBytes }) => sizeBytes)),
        manifests: kept.filter(({ manifest }) => manifest !== undefined).length,
        tags: sum(repositories.map(({ tags }) => tags.size)),
        listBytes: sum(lists.map(({ body }) => body.length)),
      };
    });
  }

  probe(): Promise<void> {
    return this.#transactions.read(() => undefined);
  }

  close(): Promise<void> {
    this.#transactions.close();
    return Promise.resolve();
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
