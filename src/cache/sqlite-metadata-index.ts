import type { Database } from "better-sqlite3";
import type { ChildDescriptor, Descriptor } from "../oci/descriptor.ts";
import { type Digest, digestHex, parseDigest } from "../oci/digest.ts";
import type { RepositoryName, Tag } from "../oci/reference.ts";
import { AccessTimes, type Schedule, type Uses } from "./access-times.ts";
import {
  type IndexStatements,
  prepareIndexStatements,
} from "./index-statements.ts";
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

/** An index of indexes may go so deep below the one that is asked for; engines follow fewer. */
const MAX_INDEX_DEPTH = 4;
/** Between the path and the tag of a waiting use; neither holds one. */
const TAG_SEPARATOR = "\n";

export interface SqliteMetadataIndexOptions {
  /** Migrated, and closed with the index. */
  readonly database: Database;
  readonly schedule: Schedule;
  /** Called when SQLite finds the file damaged; the index goes on as far as it can. */
  readonly onCorrupt: (error: unknown) => void;
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
  readonly #accessTimes: AccessTimes;
  readonly #onCorrupt: (error: unknown) => void;
  #isClosed = false;

  constructor({ database, schedule, onCorrupt }: SqliteMetadataIndexOptions) {
    this.#database = database;
    this.#statements = prepareIndexStatements(database);
    this.#accessTimes = new AccessTimes(
      (uses) => this.#writeUses(uses),
      schedule,
    );
    this.#onCorrupt = onCorrupt;
  }

  getLinkedBlob(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<BlobRow | undefined> {
    return this.#read("getLinkedBlob", () =>
      blobRow(
        digest,
        this.#statements.getLinkedBlob.get(pathOf(key), bytesOf(digest)),
      ),
    );
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
      this.#statements.putLink.run(blob.id, this.#repositoryId(key));
    });
  }

  recordBlob(key: RepositoryKey, blob: BlobRecord): Promise<void> {
    return this.#write("recordBlob", () => {
      const { sizeBytes, storedAtMs, manifest } = blob;
      const id = this.#digestId(blob.digest);
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
      this.#statements.putLink.run(id, this.#repositoryId(key));
    });
  }

  forgetBlob(digest: Digest): Promise<void> {
    return this.#write("forgetBlob", () => {
      this.#statements.deleteBlob.run(bytesOf(digest));
    });
  }

  getTag(key: RepositoryKey, tag: Tag): Promise<TagRow | undefined> {
    return this.#read("getTag", () => {
      const row = this.#statements.getTag.get(pathOf(key), tag);
      return row && { ...row, digest: digestFrom(row.digest) };
    });
  }

  putTag(
    key: RepositoryKey,
    tag: Tag,
    digest: Digest,
    verifiedAtMs: number,
  ): Promise<void> {
    return this.#write("putTag", () => {
      const { changes } = this.#statements.putTag.run({
        repositoryId: this.#repositoryId(key),
        tag,
        digest: bytesOf(digest),
        atMs: verifiedAtMs,
      });
      if (changes === 0) {
        throw new IndexError(`putTag: no manifest ${digest} is stored`);
      }
    });
  }

  removeTag(key: RepositoryKey, tag: Tag): Promise<void> {
    return this.#write("removeTag", () => {
      this.#statements.removeTag.run(pathOf(key), tag);
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
    this.#accessTimes.note(pathOf(key) + TAG_SEPARATOR + tag, atMs);
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
          const separator = key.indexOf(TAG_SEPARATOR);
          if (separator === -1) {
            this.#statements.touchBlob.run(atMs, bytesOf(key as Digest));
          } else {
            this.#statements.touchTag.run(
              atMs,
              key.slice(0, separator),
              key.slice(separator + TAG_SEPARATOR.length),
            );
          }
        }
      })
      .immediate();
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

  /** One transaction that takes the write lock at once: none is begun that can't be ended. */
  #write(method: string, work: () => void): Promise<void> {
    return this.#read(method, () =>
      this.#database.transaction(work).immediate(),
    );
  }

  #read<T>(method: string, work: () => T): Promise<T> {
    try {
      return Promise.resolve(work());
    } catch (error) {
      if (isCorruption(error)) this.#onCorrupt(error);
      return Promise.reject(
        error instanceof IndexError
          ? error
          : new IndexError(`${method}: ${sqliteCode(error)}`, { cause: error }),
      );
    }
  }
}

/** The code of a SQLite error, as in `SQLITE_BUSY`; else what the error says. */
export function sqliteCode(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return "code" in error && typeof error.code === "string"
    ? error.code
    : error.message;
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

function pathOf(key: RepositoryKey): string {
  return `${key.upstream}/${key.repository}`;
}

function bytesOf(digest: Digest): Buffer {
  return Buffer.from(digestHex(digest), "hex");
}

/** @throws IndexError when the row holds no digest */
function digestFrom(bytes: Buffer): Digest {
  const algorithm = bytes.length === 32 ? "sha256" : "sha512";
  const digest = parseDigest(`${algorithm}:${bytes.toString("hex")}`);
  if (digest === undefined) throw new IndexError("a digest of a wrong length");
  return digest;
}
