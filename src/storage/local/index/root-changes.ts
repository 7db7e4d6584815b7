import type { Digest } from "../../../oci/digest.ts";
import type { Reference, RepositoryKey, Tag } from "../../../oci/reference.ts";
import type { BlobRows } from "./blob-rows.ts";
import { bytesOf, digestFrom, pathOf } from "./index-keys.ts";
import type { IndexStatements } from "./index-statements.ts";
import { IndexError } from "../../metadata-index.ts";
import type { RootChange } from "../upkeep/roots-journal.ts";
import type { SqliteRoots } from "./sqlite-roots.ts";

/** What was done, and what the journal must be told of it once it is written. */
export interface Changed<T> {
  readonly result: T;
  readonly changes: readonly RootChange[];
}

/** Writes what the journal holds as well: roots with a manifest, and pins. Runs in the caller's transactions. */
export class RootChanges {
  readonly #statements: IndexStatements;
  readonly #roots: SqliteRoots;
  readonly #rows: BlobRows;

  constructor(statements: IndexStatements, roots: SqliteRoots, rows: BlobRows) {
    this.#statements = statements;
    this.#roots = roots;
    this.#rows = rows;
  }

  /** @throws IndexError when no such manifest is stored */
  putTag(
    key: RepositoryKey,
    tag: Tag,
    digest: Digest,
    atMs: number,
  ): Changed<void> {
    const repositoryId = this.#rows.repositoryId(key);
    const before = this.#roots.getTagHold(key, tag);
    const left =
      before === undefined ||
      before.manifestId ===
        this.#statements.findStoredId.get(bytesOf(digest))?.id
        ? undefined
        : this.#roots.lists.get(key, { kind: "tag", tag })?.digest;
    const { changes } = this.#statements.putTag.run({
      repositoryId,
      tag,
      digest: bytesOf(digest),
      atMs,
    });
    const manifest = this.#statements.findStoredId.get(bytesOf(digest));
    if (changes === 0 || manifest === undefined) {
      throw new IndexError(`putTag: no manifest ${digest} is stored`);
    }
    const isPinnedAgain = this.#roots.onTagPut(
      repositoryId,
      tag,
      manifest.id,
      before,
    );
    if (manifest.id === before?.manifestId && !isPinnedAgain) return NOTHING;
    return {
      result: undefined,
      changes: [
        ...this.#tagNow(key, tag),
        ...this.#unlessRoot(key, digest),
        ...(left === undefined ? [] : this.#digestRootNow(key, left)),
      ],
    };
  }

  /**
   * Runs a write that stores a manifest or links it to a repository, which makes it a root where
   * nothing names it.
   */
  storeManifest(
    key: RepositoryKey,
    digest: Digest,
    write: () => void,
  ): Changed<void> {
    const reference = { kind: "digest", digest } as const;
    const wasRoot = this.#roots.lists.get(key, reference) !== undefined;
    write();
    return wasRoot
      ? NOTHING
      : {
          result: undefined,
          changes: this.#digestRootNow(key, digest).map((change) => ({
            ...change,
            isUnnamed: true,
          })),
        };
  }

  removeTag(key: RepositoryKey, tag: Tag): Changed<void> {
    const reference = { kind: "tag", tag } as const;
    const before = this.#roots.lists.get(key, reference);
    const hold = this.#roots.getTagHold(key, tag);
    if (before === undefined || hold === undefined) return NOTHING;
    this.#statements.removeTag.run(pathOf(key), tag);
    this.#roots.onTagRemoved(hold);
    return {
      result: undefined,
      changes: [
        gone(key, reference),
        ...this.#digestRootNow(key, before.digest),
      ],
    };
  }

  /** @returns false where there is neither the root nor its lost pin */
  setPinned(
    key: RepositoryKey,
    reference: Reference,
    isPinned: boolean,
  ): Changed<boolean> {
    const isThere = this.#roots.setPinned(
      key,
      this.#statements.findRepositoryId.get(pathOf(key))?.id,
      reference,
      isPinned,
    );
    if (!isThere) return { result: false, changes: [] };
    return { result: true, changes: this.#pinNow(key, reference, isPinned) };
  }

  keepLostPin(key: RepositoryKey, reference: Reference): Changed<void> {
    this.#roots.keepLostPin(this.#rows.repositoryId(key), reference);
    return {
      result: undefined,
      changes: this.#pinNow(key, reference, true),
    };
  }

  /** @returns false where there is no such root, or it was used or pinned since `usedAtMs` */
  drop(
    key: RepositoryKey,
    reference: Reference,
    usedAtMs: number | undefined,
  ): Changed<boolean> {
    const root = this.#roots.lists.get(key, reference);
    const isDropped = this.#roots.drop(
      key,
      this.#statements.findRepositoryId.get(pathOf(key))?.id,
      reference,
      usedAtMs,
    );
    // The journal has no line of a blob that is not a manifest; a pin that was lost has one.
    const isInJournal = root === undefined || root.mediaType !== undefined;
    return {
      result: isDropped,
      changes:
        isDropped && isInJournal
          ? [{ ...gone(key, reference), atMs: Date.now() }]
          : [],
    };
  }

  #pinNow(
    key: RepositoryKey,
    reference: Reference,
    isPinned: boolean,
  ): readonly RootChange[] {
    if (reference.kind === "tag") {
      const now = this.#tagNow(key, reference.tag);
      return now.length > 0 ? now : [{ ...gone(key, reference), isPinned }];
    }
    if (isPinned) return [this.#digestPin(key, reference.digest)];
    const now = this.#digestRootNow(key, reference.digest);
    return now.length > 0 ? now : [gone(key, reference)];
  }

  /** The line of a digest that is a root by itself. */
  #digestRootNow(key: RepositoryKey, digest: Digest): readonly RootChange[] {
    const reference = { kind: "digest", digest } as const;
    const root = this.#roots.lists.get(key, reference);
    if (root?.mediaType === undefined) return [];
    const { mediaType, isPinned } = root;
    return [{ key, reference, digest, mediaType, isPinned, atMs: undefined }];
  }

  /** A digest that its tag names now needs no line of its own. */
  #unlessRoot(key: RepositoryKey, digest: Digest): readonly RootChange[] {
    const reference = { kind: "digest", digest } as const;
    return this.#roots.lists.get(key, reference) === undefined
      ? [{ ...gone(key, reference), isNamed: true }]
      : [];
  }

  /** What the tag's row says. */
  #tagNow(key: RepositoryKey, tag: Tag): readonly RootChange[] {
    const row = this.#statements.getTag.get(pathOf(key), tag);
    const isPinned = this.#roots.getTagHold(key, tag)?.isPinned === 1;
    if (row === undefined) return [];
    return [
      {
        key,
        reference: { kind: "tag", tag },
        digest: digestFrom(row.digest),
        mediaType: row.mediaType,
        isPinned,
        atMs: row.fetchedAtMs,
      },
    ];
  }

  #digestPin(key: RepositoryKey, digest: Digest): RootChange {
    const mediaType =
      this.#statements.getLinkedBlob.get(pathOf(key), bytesOf(digest))
        ?.mediaType ?? undefined;
    return {
      key,
      reference: { kind: "digest", digest },
      digest: mediaType === undefined ? undefined : digest,
      mediaType,
      isPinned: true,
      atMs: undefined,
    };
  }
}

const NOTHING: Changed<void> = { result: undefined, changes: [] };

function gone(key: RepositoryKey, reference: Reference): RootChange {
  return {
    key,
    reference,
    digest: undefined,
    mediaType: undefined,
    isPinned: false,
    atMs: undefined,
  };
}
