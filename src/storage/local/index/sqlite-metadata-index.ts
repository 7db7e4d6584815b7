import type { Descriptor } from "../../../oci/descriptor.ts";
import type { Digest } from "../../../oci/digest.ts";
import type {
  RepositoryKey,
  RepositoryName,
  Tag,
} from "../../../oci/reference.ts";
import { blobRow, type BlobRows } from "./blob-rows.ts";
import { hasCompleteImage } from "./completeness.ts";
import { bytesOf, digestFrom, pathOf } from "./index-keys.ts";
import {
  createIndexParts,
  type IndexOptions,
  type IndexParts,
} from "./index-parts.ts";
import type { HostedRecovery } from "./hosted-index/hosted-recovery.ts";
import type { IndexStatements } from "./index-statements.ts";
import type { IndexTransactions } from "./index-transactions.ts";
import type { IntentRows } from "./intents.ts";
import type {
  BlobRecord,
  BlobRow,
  FillIntent,
  NotedIntent,
} from "../../blob-index.ts";
import type { BlobScope } from "../../graph-index.ts";
import {
  IndexError,
  type IndexTotals,
  type MetadataIndex,
} from "../../metadata-index.ts";
import type { TagRow } from "../../tag-index.ts";
import { SqliteRootIndex } from "./sqlite-root-index.ts";
import type { SqliteRoots } from "./sqlite-roots.ts";
import { USE_SEPARATOR } from "./use-keys.ts";

export interface SqliteIndex extends MetadataIndex {
  readonly hostedRecovery: HostedRecovery;
}

export function createSqliteMetadataIndex(options: IndexOptions): SqliteIndex {
  return new SqliteMetadataIndex(createIndexParts(options));
}

/** SQLite is synchronous: every method has finished when it returns, unless the database was locked. */
class SqliteMetadataIndex extends SqliteRootIndex implements SqliteIndex {
  readonly #parts: IndexParts;
  readonly #statements: IndexStatements;
  readonly #intents: IntentRows;
  readonly #rows: BlobRows;
  readonly #roots: SqliteRoots;
  readonly #transactions: IndexTransactions;

  constructor(parts: IndexParts) {
    super(parts);
    this.#parts = parts;
    this.#statements = parts.statements;
    this.#intents = parts.intents;
    this.#rows = parts.rows;
    this.#roots = parts.roots;
    this.#transactions = parts.transactions;
  }

  get hostedRecovery(): HostedRecovery {
    return this.#parts.hosted.recovery;
  }

  getLinkedBlob(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<BlobRow | undefined> {
    return this.#transactions.read("getLinkedBlob", () => {
      const path = pathOf(key);
      return this.#parts.recentBlobs.keep(
        path + USE_SEPARATOR + digest,
        blobRow(
          digest,
          this.#statements.getLinkedBlob.get(path, bytesOf(digest)),
        ),
      );
    });
  }

  recallLinkedBlob(key: RepositoryKey, digest: Digest): BlobRow | undefined {
    return this.#parts.recentBlobs.get(pathOf(key) + USE_SEPARATOR + digest);
  }

  getBlob(digest: Digest): Promise<BlobRow | undefined> {
    return this.#transactions.read("getBlob", () =>
      blobRow(digest, this.#statements.getBlob.get(bytesOf(digest))),
    );
  }

  getUpstreamBlob(
    upstream: string,
    digest: Digest,
  ): Promise<BlobRow | undefined> {
    return this.#transactions.read("getUpstreamBlob", () =>
      blobRow(
        digest,
        this.#statements.getUpstreamBlob.get(bytesOf(digest), upstream),
      ),
    );
  }

  link(key: RepositoryKey, digest: Digest, mediaType?: string): Promise<void> {
    return this.#parts.writeRoots("link", () =>
      this.#parts.rootChanges.storeManifest(key, digest, () => {
        const blob = this.#statements.findStoredId.get(bytesOf(digest));
        if (blob === undefined) return;
        const repositoryId = this.#rows.repositoryId(key);
        const { changes } = this.#statements.putLink.run(blob.id, repositoryId);
        if (mediaType !== undefined) {
          this.#putLinkType(blob.id, repositoryId, mediaType);
        }
        this.#roots.onManifestLinked(
          blob.id,
          repositoryId,
          digest,
          blob.usedAtMs,
        );
        if (changes === 0) return;
        this.#roots.onManifest(blob.id);
        this.#roots.onStored(blob.id, repositoryId, blob.usedAtMs);
      }),
    );
  }

  beginFill(key: RepositoryKey, blob: FillIntent): Promise<void> {
    return this.#transactions.write("beginFill", () => {
      this.#intents.put(
        this.#rows.digestId(blob.digest),
        this.#rows.repositoryId(key),
        blob.sizeBytes,
        blob.mediaType === undefined
          ? null
          : this.#rows.mediaTypeId(blob.mediaType),
      );
    });
  }

  dropIntent(digest: Digest): Promise<void> {
    return this.#transactions.write("dropIntent", () => {
      this.#intents.drop(digest);
      this.#roots.dropUnusedName(digest);
    });
  }

  listIntents(): Promise<readonly NotedIntent[]> {
    return this.#transactions.read("listIntents", () => this.#intents.list());
  }

  recordBlob(key: RepositoryKey, blob: BlobRecord): Promise<void> {
    const { manifest, digest, storedAtMs } = blob;
    const write = (): void => {
      const id = this.#putBlob(blob);
      this.#roots.onBytesStored(id);
      const repositoryId = this.#rows.repositoryId(key);
      this.#statements.putLink.run(id, repositoryId);
      if (manifest !== undefined) {
        this.#putLinkType(id, repositoryId, manifest.mediaType);
        this.#roots.onManifest(id);
        this.#roots.onManifestLinked(id, repositoryId, digest, storedAtMs);
      }
      this.#roots.onStored(id, repositoryId, storedAtMs);
    };
    return manifest === undefined
      ? this.#transactions.write("recordBlob", write)
      : this.#parts.writeRoots("recordBlob", () =>
          this.#parts.rootChanges.storeManifest(key, digest, write),
        );
  }

  adoptBlob(blob: BlobRecord): Promise<void> {
    return this.#transactions.write("adoptBlob", () => {
      const id = this.#putBlob(blob);
      if (blob.manifest !== undefined) {
        // The file itself states the type.
        this.#statements.putManifestType.run(
          this.#rows.mediaTypeId(blob.manifest.mediaType),
          id,
        );
        this.#roots.onManifest(id);
      }
      this.#roots.onAdopted(id, blob.storedAtMs);
    });
  }

  noteVerified(digests: readonly Digest[], atMs: number): Promise<void> {
    return this.#transactions.write("noteVerified", () => {
      for (const digest of digests) {
        this.#statements.noteVerified.run(atMs, bytesOf(digest));
      }
    });
  }

  forgetBlob(digest: Digest): Promise<void> {
    return this.#transactions.write("forgetBlob", () => {
      const stored = this.#statements.findStoredId.get(bytesOf(digest));
      const afterwards = [
        ...(stored === undefined
          ? []
          : [this.#parts.hosted.writes.rows.beforeForgotten(stored.id)]),
        this.#roots.beforeForgotten(digest),
      ];
      this.#statements.deleteBlob.run(bytesOf(digest));
      this.#intents.drop(digest);
      for (const run of afterwards) run();
    });
  }

  getTag(key: RepositoryKey, tag: Tag): Promise<TagRow | undefined> {
    return this.#transactions.read("getTag", () => {
      const path = pathOf(key);
      const row = this.#statements.getTag.get(path, tag);
      return this.#parts.recentTags.keep(
        path + USE_SEPARATOR + tag,
        row && {
          ...row,
          digest: digestFrom(row.digest),
          goneAtMs: row.goneAtMs ?? undefined,
          isPinned: row.isPinned === 1,
        },
      );
    });
  }

  recallTag(key: RepositoryKey, tag: Tag): TagRow | undefined {
    return this.#parts.recentTags.get(pathOf(key) + USE_SEPARATOR + tag);
  }

  putTag(
    key: RepositoryKey,
    tag: Tag,
    digest: Digest,
    verifiedAtMs: number,
    seenAtMs: number = verifiedAtMs,
  ): Promise<void> {
    return this.#parts.writeRoots("putTag", () =>
      this.#parts.rootChanges.putTag(key, tag, digest, {
        verifiedAtMs,
        seenAtMs,
      }),
    );
  }

  removeTag(key: RepositoryKey, tag: Tag): Promise<void> {
    return this.#parts.writeRoots("removeTag", () =>
      this.#parts.rootChanges.removeTag(key, tag),
    );
  }

  markTagGone(key: RepositoryKey, tag: Tag, goneAtMs: number): Promise<void> {
    return this.#transactions.write("markTagGone", () => {
      this.#statements.markTagGone.run(goneAtMs, pathOf(key), tag);
    });
  }

  listTags(
    key: RepositoryKey,
    limit: number,
    last: string | undefined,
  ): Promise<readonly Tag[]> {
    return this.#transactions.read("listTags", () =>
      this.#statements.listTags
        .all(pathOf(key), last ?? "", limit)
        .map(({ name }) => name as Tag),
    );
  }

  listRepositories(
    limit: number,
    last: string | undefined,
  ): Promise<readonly RepositoryKey[]> {
    return this.#transactions.read("listRepositories", () =>
      this.#statements.listRepositories
        .all(last ?? "", limit)
        .map(({ upstream, name }) => ({
          upstream,
          repository: name as RepositoryName,
        })),
    );
  }

  findDescriptor(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<Descriptor | undefined> {
    return this.#transactions.read("findDescriptor", () => {
      const row = this.#statements.findDescriptor.get(
        pathOf(key),
        bytesOf(digest),
      );
      return row && { digest, ...row };
    });
  }

  isComplete(
    key: RepositoryKey,
    digest: Digest,
    blobScope: BlobScope,
  ): Promise<boolean> {
    return this.#transactions.read("isComplete", () =>
      hasCompleteImage(this.#statements, key, digest, blobScope),
    );
  }

  touchBlob(digest: Digest, atMs: number): void {
    this.#parts.accessTimes.note(digest, atMs);
  }

  touchTag(key: RepositoryKey, tag: Tag, atMs: number): void {
    this.#parts.accessTimes.note(pathOf(key) + USE_SEPARATOR + tag, atMs);
  }

  totals(): Promise<IndexTotals> {
    return this.#transactions.read("totals", () => this.#totals());
  }

  probe(): Promise<void> {
    return this.#transactions.read("probe", () => {
      this.#totals();
    });
  }

  close(): Promise<void> {
    return this.#transactions.read("close", () => this.#parts.close());
  }

  /** @returns the row's id */
  #putBlob(blob: BlobRecord): number {
    const afterwards = this.#parts.hosted.writes.rows.beforeStored(blob);
    const id = this.#rows.putBlob(blob);
    afterwards(id);
    return id;
  }

  #putLinkType(blobId: number, repositoryId: number, mediaType: string): void {
    const mediaTypeId = this.#rows.mediaTypeId(mediaType);
    this.#statements.putLinkType.run({ blobId, repositoryId, mediaTypeId });
  }

  #totals(): IndexTotals {
    const totals = this.#statements.getTotals.get();
    if (totals === undefined)
      throw new IndexError(
        "got no row of totals; expected one: run `entrepot scrub --repair`",
      );
    return totals;
  }
}
