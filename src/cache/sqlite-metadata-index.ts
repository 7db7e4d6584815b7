import { setTimeout as delay } from "node:timers/promises";
import type { Database } from "better-sqlite3";
import type { ChildDescriptor, Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { Reference, RepositoryName, Tag } from "../oci/reference.ts";
import { RecentRows } from "./recent-rows.ts";
import { AccessTimes, type Schedule, type Uses } from "./access-times.ts";
import {
  type IndexStatements,
  prepareIndexStatements,
} from "./index-statements.ts";
import { bytesOf, digestFrom, pathOf } from "./index-keys.ts";
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

/** An index of indexes may go so deep below the one that is asked for; engines follow fewer. */
const MAX_INDEX_DEPTH = 4;
/** Between a path and the tag or digest behind it; none of them holds one. */
const USE_SEPARATOR = "\n";

/** Some three seconds: a thread that syncs to a slow disk may hold the lock for as long. */
const BUSY_RETRY_DELAYS_MS = [
  5, 10, 20, 40, 75, 150, 300, 400, 500, 500, 500, 500,
];

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
  readonly #roots: SqliteRoots;
  readonly #accessTimes: AccessTimes;
  readonly #onCorrupt: (error: unknown) => void;
  readonly #onWritten: () => void;
  readonly #onFull: () => void;
  readonly #onTagChange: (change: TagChange) => void;
  readonly #recentTags = new RecentRows<TagRow>();
  readonly #recentBlobs = new RecentRows<BlobRow>();
  #isClosed = false;

  constructor(options: SqliteMetadataIndexOptions) {
    const { database, schedule } = options;
    this.#database = database;
    this.#statements = prepareIndexStatements(database);
    this.#intents = new IntentRows(database);
    this.#roots = new SqliteRoots(database);
    this.#accessTimes = new AccessTimes(
      (uses) => this.#writeUses(uses),
      schedule,
    );
    this.#onCorrupt = options.onCorrupt;
    this.#onWritten = options.onWritten ?? (() => undefined);
    this.#onFull = options.onFull ?? (() => undefined);
    this.#onTagChange = options.onTagChange ?? (() => undefined);
  }

  getLinkedBlob(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<BlobRow | undefined> {
    return this.#read("getLinkedBlob", () => {
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
    return this.#read("getBlob", () =>
      blobRow(digest, this.#statements.getBlob.get(bytesOf(digest))),
    );
  }

  isLinkedInUpstream(upstream: string, digest: Digest): Promise<boolean> {
    return this.#read(
      "isLinkedInUpstream",
      () =>
        this.#statements.isLinkedInUpstream.get(bytesOf(digest), upstream) !==
        undefined,
    );
  }

  link(key: RepositoryKey, digest: Digest): Promise<void> {
    return this.#write("link", () => {
      const blob = this.#statements.findStoredId.get(bytesOf(digest));
      if (blob === undefined) return;
      const repositoryId = this.#repositoryId(key);
      const { changes } = this.#statements.putLink.run(blob.id, repositoryId);
      if (changes === 0) return;
      this.#roots.onManifest(blob.id);
      this.#roots.onStored(blob.id, repositoryId, blob.usedAtMs);
    });
  }

  beginFill(key: RepositoryKey, blob: FillIntent): Promise<void> {
    return this.#write("beginFill", () => {
      this.#intents.put(
        this.#digestId(blob.digest),
        this.#repositoryId(key),
        blob.sizeBytes,
        blob.mediaType === undefined ? null : this.#mediaTypeId(blob.mediaType),
      );
    });
  }

  dropIntent(digest: Digest): Promise<void> {
    return this.#write("dropIntent", () => {
      this.#intents.drop(digest);
    });
  }

  listIntents(): Promise<readonly NotedIntent[]> {
    return this.#read("listIntents", () => this.#intents.list());
  }

  recordBlob(key: RepositoryKey, blob: BlobRecord): Promise<void> {
    return this.#write("recordBlob", () => {
      const id = this.#putBlob(blob);
      const repositoryId = this.#repositoryId(key);
      this.#statements.putLink.run(id, repositoryId);
      if (blob.manifest !== undefined) this.#roots.onManifest(id);
      this.#roots.onStored(id, repositoryId, blob.storedAtMs);
    });
  }

  adoptBlob(blob: BlobRecord): Promise<void> {
    return this.#write("adoptBlob", () => {
      const id = this.#putBlob(blob);
      if (blob.manifest !== undefined) this.#roots.onManifest(id);
      this.#roots.onAdopted(id, blob.storedAtMs);
    });
  }

  forgetBlob(digest: Digest): Promise<void> {
    return this.#write("forgetBlob", () => {
      const afterwards = this.#roots.beforeForgotten(digest);
      this.#statements.deleteBlob.run(bytesOf(digest));
      afterwards();
      this.#intents.drop(digest);
    });
  }

  getTag(key: RepositoryKey, tag: Tag): Promise<TagRow | undefined> {
    return this.#read("getTag", () => {
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
    return this.#write("putTag", () => {
      const repositoryId = this.#repositoryId(key);
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
    }).then(() => {
      if (change !== undefined) this.#onTagChange(change);
    });
  }

  removeTag(key: RepositoryKey, tag: Tag): Promise<void> {
    let wasThere = false;
    return this.#write("removeTag", () => {
      const before = this.#roots.getTagHold(key, tag);
      this.#statements.removeTag.run(pathOf(key), tag);
      if (before !== undefined) this.#roots.onTagRemoved(before);
      wasThere = before !== undefined;
    }).then(() => {
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
    return this.#read("listTags", () =>
      this.#statements.listTags
        .all(pathOf(key), last ?? "", limit)
        .map(({ name }) => name as Tag),
    );
  }

  listRepositories(
    limit: number,
    last: string | undefined,
  ): Promise<readonly RepositoryKey[]> {
    return this.#read("listRepositories", () =>
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
    return this.#read("findDescriptor", () => {
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
    return this.#read("isComplete", () => {
      const path = pathOf(key);
      const {
        findLinkedManifestId,
        findMissingBlobChild,
        findAbsentBlobChild,
      } = this.#statements;
      const root = findLinkedManifestId.get(path, bytesOf(digest));
      const hasAllBlobs = (id: number): boolean =>
        blobScope === "repository"
          ? findMissingBlobChild.get(id, path) === undefined
          : findAbsentBlobChild.get(id, key.upstream) === undefined;
      return (
        root !== undefined &&
        this.#hasCompleteManifest(root.id, path, hasAllBlobs)
      );
    });
  }

  getReferrers(
    key: RepositoryKey,
    subject: Digest,
  ): Promise<ReferrersRow | undefined> {
    return this.#read("getReferrers", () =>
      this.#statements.getReferrers.get(pathOf(key), bytesOf(subject)),
    );
  }

  putReferrers(
    key: RepositoryKey,
    subject: Digest,
    row: ReferrersRow,
  ): Promise<void> {
    return this.#write("putReferrers", () => {
      this.#statements.putReferrers.run(
        this.#repositoryId(key),
        this.#digestId(subject),
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
    return this.#read("listOldestRoots", () =>
      this.#roots.oldest(limit, after),
    );
  }

  listImages(
    limit: number,
    after: Pick<RootRow, "key" | "reference"> | undefined,
  ): Promise<readonly RootRow[]> {
    return this.#read("listImages", () => this.#roots.images(limit, after));
  }

  getRoot(
    key: RepositoryKey,
    reference: Reference,
  ): Promise<RootRow | undefined> {
    return this.#read("getRoot", () => this.#roots.get(key, reference));
  }

  getNode(digest: Digest): Promise<GraphNode | undefined> {
    return this.#read("getNode", () => this.#roots.node(digest));
  }

  listChildren(parent: Digest, after: number | undefined): Promise<ChildPage> {
    return this.#read("listChildren", () =>
      this.#roots.children(parent, after),
    );
  }

  setPinned(
    key: RepositoryKey,
    reference: Reference,
    isPinned: boolean,
  ): Promise<boolean> {
    return this.#write("setPinned", () =>
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
    return this.#write("dropRoot", () => {
      this.#accessTimes.flush();
      return this.#roots.drop(
        key,
        this.#statements.findRepositoryId.get(pathOf(key))?.id,
        reference,
        usedAtMs,
      );
    }).then((isDropped) => {
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
    return this.#write("listCondemned", () =>
      this.#roots.condemned(limit, except),
    );
  }

  forgetCondemned(digests: readonly Digest[]): Promise<void> {
    return this.#write("forgetCondemned", () => {
      this.#roots.forgetCondemned(digests);
      for (const digest of digests) this.#intents.drop(digest);
    });
  }

  totals(): Promise<IndexTotals> {
    return this.#read("totals", () => this.#totals());
  }

  probe(): Promise<void> {
    return this.#read("probe", () => {
      this.#totals();
    });
  }

  close(): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    this.#accessTimes.flush();
    this.#isClosed = true;
    return this.#read("close", () => {
      this.#database.close();
    });
  }

  /**
   * Level by level, each manifest once and at its least depth, so that an index that names the
   * same indexes over and over costs no more than their number.
   */
  #hasCompleteManifest(
    rootId: number,
    path: string,
    hasAllBlobs: (manifestId: number) => boolean,
  ): boolean {
    const seen = new Set([rootId]);
    let level = [rootId];
    for (let depth = 0; depth <= MAX_INDEX_DEPTH; depth += 1) {
      const next: number[] = [];
      for (const id of level) {
        if (this.#statements.hasManifestChild.get(id) === undefined) {
          if (hasAllBlobs(id)) return true;
          continue;
        }
        for (const child of this.#statements.listLinkedManifestChildren.all(
          path,
          id,
        )) {
          if (!seen.has(child.id)) next.push(child.id);
          seen.add(child.id);
        }
      }
      level = next;
    }
    return false;
  }

  #putBlob({ digest, sizeBytes, storedAtMs, manifest }: BlobRecord): number {
    const id = this.#digestId(digest);
    this.#statements.putBlob.run(id, sizeBytes, storedAtMs, storedAtMs);
    if (manifest !== undefined) {
      this.#statements.putManifest.run(
        id,
        this.#mediaTypeId(manifest.mediaType),
        manifest.subject === undefined
          ? null
          : this.#digestId(manifest.subject),
      );
      this.#putEdges(id, manifest.children);
    }
    this.#intents.drop(digest);
    return id;
  }

  /** The same bytes have the same children, unless a newer program reads them better: the old ones go. */
  #putEdges(parentId: number, children: readonly ChildDescriptor[]): void {
    this.#statements.deleteEdges.run(parentId);
    for (const child of children) {
      this.#statements.putEdge.run({
        parentId,
        childId: this.#digestId(child.digest),
        isManifest: child.role === "manifest" ? 1 : 0,
        isForeign: child.isForeign ? 1 : 0,
        sizeBytes: child.sizeBytes,
        mediaTypeId: this.#mediaTypeId(child.mediaType),
      });
    }
  }

  #writeUses(uses: Uses): void {
    this.#database
      .transaction(() => {
        for (const [key, atMs] of uses) {
          this.#writeUse(key, atMs);
        }
      })
      .immediate();
    this.#onWritten();
  }

  /** A digest by itself is a blob's; behind a path a tag's name or a manifest's digest. */
  #writeUse(use: string, atMs: number): void {
    const separator = use.indexOf(USE_SEPARATOR);
    if (separator === -1) {
      this.#statements.touchBlob.run(atMs, bytesOf(use as Digest));
      this.#roots.touchBlob(use as Digest, atMs);
      return;
    }
    const path = use.slice(0, separator);
    const name = use.slice(separator + USE_SEPARATOR.length);
    if (name.includes(":")) {
      const digest = name as Digest;
      this.#statements.touchBlob.run(atMs, bytesOf(digest));
      const repository = this.#statements.findRepositoryId.get(path);
      if (repository !== undefined) {
        this.#roots.touchManifest(repository.id, digest, atMs);
      }
    } else {
      this.#roots.touchTag(path, name, atMs);
    }
  }

  #totals(): IndexTotals {
    const totals = this.#statements.getTotals.get();
    if (totals === undefined) throw new IndexError("totals: the row is gone");
    return totals;
  }

  #digestId(digest: Digest): number {
    const bytes = bytesOf(digest);
    return (
      this.#statements.findDigestId.get(bytes)?.id ??
      Number(this.#statements.insertDigest.run(bytes).lastInsertRowid)
    );
  }

  #mediaTypeId(name: string): number {
    return (
      this.#statements.findMediaTypeId.get(name)?.id ??
      Number(this.#statements.insertMediaType.run(name).lastInsertRowid)
    );
  }

  #repositoryId(key: RepositoryKey): number {
    return (
      this.#statements.findRepositoryId.get(pathOf(key))?.id ??
      Number(
        this.#statements.insertRepository.run(key.upstream, key.repository)
          .lastInsertRowid,
      )
    );
  }

  /**
   * One transaction that takes the write lock at once: none is begun that can't be ended. While
   * another thread or process holds the lock it is tried again, and the loop runs on meanwhile.
   */
  #write<T>(method: string, work: () => T): Promise<T> {
    return this.#read(method, () => {
      try {
        return this.#transact(work);
      } catch (error) {
        if (!isBusy(error)) throw error;
        return this.#writeLater(method, work, error);
      }
    });
  }

  async #writeLater<T>(
    method: string,
    work: () => T,
    busy: unknown,
  ): Promise<T> {
    let error = busy;
    for (const delayMs of BUSY_RETRY_DELAYS_MS) {
      await delay(delayMs);
      try {
        return this.#transact(work);
      } catch (again) {
        error = again;
        if (!isBusy(again)) break;
      }
    }
    throw this.#asIndexError(method, error);
  }

  #transact<T>(work: () => T): T {
    const transaction = this.#database.transaction(work);
    let result: T;
    const before = this.#changes();
    try {
      result = transaction.immediate();
    } catch (error) {
      if (sqliteCode(error) !== "SQLITE_FULL") throw error;
      // The transaction is rolled back already.
      this.#makeRoom();
      result = transaction.immediate();
    }
    // Who looks for something to do and finds nothing has written nothing.
    if (this.#changes() !== before) {
      this.#recentTags.clear();
      this.#recentBlobs.clear();
      this.#onWritten();
    }
    return result;
  }

  /** Rows that this connection has changed since it was opened. */
  #changes(): number {
    return this.#statements.countChanges.get()?.changes ?? 0;
  }

  /**
   * On a full disk the log can't grow, and so not even a row can go. What held room for it is given
   * up, and the log is begun anew: the one checkpoint that waits for the disk here.
   */
  #makeRoom(): void {
    this.#onFull();
    try {
      this.#database.pragma("wal_checkpoint(TRUNCATE)");
    } catch {
      // Then the write fails as it did before.
    }
  }

  #read<T>(method: string, work: () => T | Promise<T>): Promise<T> {
    try {
      return Promise.resolve(work());
    } catch (error) {
      return Promise.reject(this.#asIndexError(method, error));
    }
  }

  #asIndexError(method: string, error: unknown): IndexError {
    if (isCorruption(error)) this.#onCorrupt(error);
    return error instanceof IndexError
      ? error
      : new IndexError(`${method}: ${sqliteCode(error)}`, { cause: error });
  }
}

/** The code of a SQLite error, as in `SQLITE_BUSY`; else what the error says. */
export function sqliteCode(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return "code" in error && typeof error.code === "string"
    ? error.code
    : error.message;
}

function isBusy(error: unknown): boolean {
  return sqliteCode(error).startsWith("SQLITE_BUSY");
}

/** The file is damaged, or was never a database. */
export function isCorruption(error: unknown): boolean {
  const code = sqliteCode(error);
  return code.startsWith("SQLITE_CORRUPT") || code === "SQLITE_NOTADB";
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
