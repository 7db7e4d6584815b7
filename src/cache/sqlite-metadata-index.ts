import type { Database } from "better-sqlite3";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { Reference, RepositoryName, Tag } from "../oci/reference.ts";
import { RecentRows } from "./recent-rows.ts";
import { AccessTimes, type Schedule, type Uses } from "./access-times.ts";
import {
  type IndexStatements,
  prepareIndexStatements,
} from "./index-statements.ts";
import { BlobRows } from "./blob-rows.ts";
import { hasCompleteImage } from "./completeness.ts";
import { bytesOf, digestFrom, pathOf } from "./index-keys.ts";
import { IndexTransactions } from "./index-transactions.ts";
import { type FillIntent, IntentRows, type NotedIntent } from "./intents.ts";
import {
  type BlobRecord,
  type BlobRow,
  type BlobScope,
  IndexError,
  type IndexTotals,
  type MetadataIndex,
  type ReferrersRow,
  type RepositoryKey,
  type TagRow,
} from "./metadata-index.ts";
import type {
  ChildPage,
  GraphNode,
  RootCursor,
  RootPage,
  RootRow,
} from "./root-index.ts";
import type { TagChange } from "./roots-journal.ts";
import { SqliteRoots } from "./sqlite-roots.ts";
import { USE_SEPARATOR, writeUses } from "./use-keys.ts";

export interface SqliteMetadataIndexOptions {
  /** Migrated, and closed with the index. */
  readonly database: Database;
  readonly schedule: Schedule;
  /** Called when SQLite finds the file damaged; the index goes on as far as it can. */
  readonly onCorrupt: (error: unknown) => void;
  /** Called after each transaction that wrote. */
  readonly onWritten?: () => void;
  /** Makes room on a full disk, if it can: the write is tried once more. */
  readonly onFull?: () => void;
  /** A tag points to another manifest than before, or is gone: once that is written. */
  readonly onTagChange?: (change: TagChange) => void;
}

export function createSqliteMetadataIndex(
  options: SqliteMetadataIndexOptions,
): MetadataIndex {
  return new SqliteMetadataIndex(options);
}

/** SQLite answers at once, so every method is done when it returns; promises are for the interface. */
class SqliteMetadataIndex implements MetadataIndex {
  readonly #database: Database;
  readonly #statements: IndexStatements;
  readonly #intents: IntentRows;
  readonly #rows: BlobRows;
  readonly #roots: SqliteRoots;
  readonly #accessTimes: AccessTimes;
  readonly #transactions: IndexTransactions;
  readonly #onWritten: () => void;
  readonly #onTagChange: (change: TagChange) => void;
  readonly #recentTags = new RecentRows<TagRow>();
  readonly #recentBlobs = new RecentRows<BlobRow>();
  #isClosed = false;

  constructor(options: SqliteMetadataIndexOptions) {
    const { database, schedule } = options;
    this.#database = database;
    this.#statements = prepareIndexStatements(database);
    this.#intents = new IntentRows(database);
    this.#rows = new BlobRows(this.#statements, this.#intents);
    this.#roots = new SqliteRoots(database);
    this.#accessTimes = new AccessTimes(
      (uses) => this.#writeUses(uses),
      schedule,
    );
    this.#onWritten = options.onWritten ?? (() => undefined);
    this.#transactions = new IndexTransactions({
      database,
      onCorrupt: options.onCorrupt,
      onChanged: () => {
        this.#recentTags.clear();
        this.#recentBlobs.clear();
      },
      onWritten: this.#onWritten,
      onFull: options.onFull ?? (() => undefined),
    });
    this.#onTagChange = options.onTagChange ?? (() => undefined);
  }

  getLinkedBlob(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<BlobRow | undefined> {
    return this.#transactions.read("getLinkedBlob", () => {
      const path = pathOf(key);
      return this.#recentBlobs.keep(
        path + USE_SEPARATOR + digest,
        blobRow(
          digest,
          this.#statements.getLinkedBlob.get(path, bytesOf(digest)),
        ),
      );
    });
  }

  recallLinkedBlob(key: RepositoryKey, digest: Digest): BlobRow | undefined {
    return this.#recentBlobs.get(pathOf(key) + USE_SEPARATOR + digest);
  }

  getBlob(digest: Digest): Promise<BlobRow | undefined> {
    return this.#transactions.read("getBlob", () =>
      blobRow(digest, this.#statements.getBlob.get(bytesOf(digest))),
    );
  }

  isLinkedInUpstream(upstream: string, digest: Digest): Promise<boolean> {
    return this.#transactions.read(
      "isLinkedInUpstream",
      () =>
        this.#statements.isLinkedInUpstream.get(bytesOf(digest), upstream) !==
        undefined,
    );
  }

  link(key: RepositoryKey, digest: Digest): Promise<void> {
    return this.#transactions.write("link", () => {
      const blob = this.#statements.findStoredId.get(bytesOf(digest));
      if (blob === undefined) return;
      const repositoryId = this.#rows.repositoryId(key);
      const { changes } = this.#statements.putLink.run(blob.id, repositoryId);
      if (changes === 0) return;
      this.#roots.onManifest(blob.id);
      this.#roots.onStored(blob.id, repositoryId, blob.usedAtMs);
    });
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
    });
  }

  listIntents(): Promise<readonly NotedIntent[]> {
    return this.#transactions.read("listIntents", () => this.#intents.list());
  }

  recordBlob(key: RepositoryKey, blob: BlobRecord): Promise<void> {
    return this.#transactions.write("recordBlob", () => {
      const id = this.#rows.putBlob(blob);
      const repositoryId = this.#rows.repositoryId(key);
      this.#statements.putLink.run(id, repositoryId);
      if (blob.manifest !== undefined) this.#roots.onManifest(id);
      this.#roots.onStored(id, repositoryId, blob.storedAtMs);
    });
  }

  adoptBlob(blob: BlobRecord): Promise<void> {
    return this.#transactions.write("adoptBlob", () => {
      const id = this.#rows.putBlob(blob);
      if (blob.manifest !== undefined) this.#roots.onManifest(id);
      this.#roots.onAdopted(id, blob.storedAtMs);
    });
  }

  forgetBlob(digest: Digest): Promise<void> {
    return this.#transactions.write("forgetBlob", () => {
      const afterwards = this.#roots.beforeForgotten(digest);
      this.#statements.deleteBlob.run(bytesOf(digest));
      afterwards();
      this.#intents.drop(digest);
    });
  }

  getTag(key: RepositoryKey, tag: Tag): Promise<TagRow | undefined> {
    return this.#transactions.read("getTag", () => {
      const path = pathOf(key);
      const row = this.#statements.getTag.get(path, tag);
      return this.#recentTags.keep(
        path + USE_SEPARATOR + tag,
        row && { ...row, digest: digestFrom(row.digest) },
      );
    });
  }

  recallTag(key: RepositoryKey, tag: Tag): TagRow | undefined {
    return this.#recentTags.get(pathOf(key) + USE_SEPARATOR + tag);
  }

  putTag(
    key: RepositoryKey,
    tag: Tag,
    digest: Digest,
    verifiedAtMs: number,
  ): Promise<void> {
    let change: TagChange | undefined;
    return this.#transactions
      .write("putTag", () => {
        const repositoryId = this.#rows.repositoryId(key);
        const before = this.#roots.getTagHold(key, tag);
        const { changes } = this.#statements.putTag.run({
          repositoryId,
          tag,
          digest: bytesOf(digest),
          atMs: verifiedAtMs,
        });
        if (changes === 0) {
          throw new IndexError(`putTag: no manifest ${digest} is stored`);
        }
        const manifest = this.#statements.findStoredId.get(bytesOf(digest));
        if (manifest !== undefined) {
          this.#roots.onTagPut(repositoryId, manifest.id, before);
        }
        if (manifest?.id === before?.manifestId) return;
        const mediaType =
          this.#statements.getBlob.get(bytesOf(digest))?.mediaType ?? undefined;
        change = { key, tag, digest, mediaType, atMs: verifiedAtMs };
      })
      .then(() => {
        if (change !== undefined) this.#onTagChange(change);
      });
  }

  removeTag(key: RepositoryKey, tag: Tag): Promise<void> {
    let wasThere = false;
    return this.#transactions
      .write("removeTag", () => {
        const before = this.#roots.getTagHold(key, tag);
        this.#statements.removeTag.run(pathOf(key), tag);
        if (before !== undefined) this.#roots.onTagRemoved(before);
        wasThere = before !== undefined;
      })
      .then(() => {
        if (!wasThere) return;
        this.#onTagChange({
          key,
          tag,
          digest: undefined,
          mediaType: undefined,
          atMs: undefined,
        });
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

  getReferrers(
    key: RepositoryKey,
    subject: Digest,
  ): Promise<ReferrersRow | undefined> {
    return this.#transactions.read("getReferrers", () =>
      this.#statements.getReferrers.get(pathOf(key), bytesOf(subject)),
    );
  }

  putReferrers(
    key: RepositoryKey,
    subject: Digest,
    row: ReferrersRow,
  ): Promise<void> {
    return this.#transactions.write("putReferrers", () => {
      this.#statements.putReferrers.run(
        this.#rows.repositoryId(key),
        this.#rows.digestId(subject),
        row.body,
        row.verifiedAtMs,
      );
    });
  }

  touchBlob(digest: Digest, atMs: number): void {
    if (!this.#isClosed) this.#accessTimes.note(digest, atMs);
  }

  touchTag(key: RepositoryKey, tag: Tag, atMs: number): void {
    if (this.#isClosed) return;
    this.#accessTimes.note(pathOf(key) + USE_SEPARATOR + tag, atMs);
  }

  touchManifest(key: RepositoryKey, digest: Digest, atMs: number): void {
    if (this.#isClosed) return;
    this.#accessTimes.note(pathOf(key) + USE_SEPARATOR + digest, atMs);
  }

  settleUses(): Promise<void> {
    return this.#accessTimes.settle();
  }

  listOldestRoots(
    limit: number,
    after: RootCursor | undefined,
  ): Promise<RootPage> {
    return this.#transactions.read("listOldestRoots", () =>
      this.#roots.oldest(limit, after),
    );
  }

  listImages(
    limit: number,
    after: Pick<RootRow, "key" | "reference"> | undefined,
  ): Promise<readonly RootRow[]> {
    return this.#transactions.read("listImages", () =>
      this.#roots.images(limit, after),
    );
  }

  getRoot(
    key: RepositoryKey,
    reference: Reference,
  ): Promise<RootRow | undefined> {
    return this.#transactions.read("getRoot", () =>
      this.#roots.get(key, reference),
    );
  }

  getNode(digest: Digest): Promise<GraphNode | undefined> {
    return this.#transactions.read("getNode", () => this.#roots.node(digest));
  }

  listChildren(parent: Digest, after: number | undefined): Promise<ChildPage> {
    return this.#transactions.read("listChildren", () =>
      this.#roots.children(parent, after),
    );
  }

  setPinned(
    key: RepositoryKey,
    reference: Reference,
    isPinned: boolean,
  ): Promise<boolean> {
    return this.#transactions.write("setPinned", () =>
      this.#roots.setPinned(
        key,
        this.#statements.findRepositoryId.get(pathOf(key))?.id,
        reference,
        isPinned,
      ),
    );
  }

  dropRoot(
    key: RepositoryKey,
    reference: Reference,
    usedAtMs?: number,
  ): Promise<boolean> {
    return this.#transactions
      .write("dropRoot", () => {
        this.#accessTimes.flush();
        return this.#roots.drop(
          key,
          this.#statements.findRepositoryId.get(pathOf(key))?.id,
          reference,
          usedAtMs,
        );
      })
      .then((isDropped) => {
        if (isDropped && reference.kind === "tag") {
          this.#onTagChange({
            key,
            tag: reference.tag,
            digest: undefined,
            mediaType: undefined,
            atMs: Date.now(),
          });
        }
        return isDropped;
      });
  }

  listCondemned(
    limit: number,
    except: ReadonlySet<Digest>,
  ): Promise<readonly { digest: Digest; sizeBytes: number }[]> {
    return this.#transactions.write("listCondemned", () =>
      this.#roots.condemned(limit, except),
    );
  }

  forgetCondemned(digests: readonly Digest[]): Promise<void> {
    return this.#transactions.write("forgetCondemned", () => {
      this.#roots.forgetCondemned(digests);
      for (const digest of digests) this.#intents.drop(digest);
    });
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
    if (this.#isClosed) return Promise.resolve();
    this.#accessTimes.flush();
    this.#isClosed = true;
    return this.#transactions.read("close", () => {
      this.#database.close();
    });
  }

  #writeUses(uses: Uses): void {
    this.#database
      .transaction(() => {
        writeUses(this.#statements, this.#roots, uses);
      })
      .immediate();
    this.#onWritten();
  }

  #totals(): IndexTotals {
    const totals = this.#statements.getTotals.get();
    if (totals === undefined) throw new IndexError("totals: the row is gone");
    return totals;
  }
}

function blobRow(
  digest: Digest,
  row:
    | {
        readonly sizeBytes: number;
        readonly storedAtMs: number;
        readonly mediaType: string | null;
      }
    | undefined,
): BlobRow | undefined {
  return (
    row && {
      digest,
      sizeBytes: row.sizeBytes,
      mediaType: row.mediaType ?? undefined,
      storedAtMs: row.storedAtMs,
    }
  );
}
