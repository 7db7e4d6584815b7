import type { Digest } from "../../../oci/digest.ts";
import type { Reference, RepositoryKey, Tag } from "../../../oci/reference.ts";
import type { BlobRows } from "./blob-rows.ts";
import { bytesOf, digestFrom, pathOf } from "./index-keys.ts";
import type { IndexStatements } from "./index-statements.ts";
import { IndexError } from "../../metadata-index.ts";
import type { RootChange } from "../upkeep/roots-journal.ts";
import type { SqliteRoots } from "./sqlite-roots.ts";

/** The result of a write, and the changes to report to the journal after it is committed. */
export interface Changed<T> {
  readonly result: T;
  readonly changes: readonly RootChange[];
}

/** Writes the rows that the journal records too: roots with a manifest, and pins. Runs in the caller's transactions. */
export class RootChanges {
  readonly #statements: IndexStatements;
  readonly #roots: SqliteRoots;
  readonly #rows: BlobRows;

  constructor(statements: IndexStatements, roots: SqliteRoots, rows: BlobRows) {
    this.#statements = statements;
    this.#roots = roots;
    this.#rows = rows;
  }

  /** @throws IndexError if no such manifest is stored */
  putTag(
    key: RepositoryKey,
    tag: Tag,
    digest: Digest,
    times: { readonly verifiedAtMs: number; readonly seenAtMs: number },
  ): Changed<void> {
    const repositoryId = this.#rows.repositoryId(key);
    const before = this.#roots.getTagHold(key, tag);
    const leftDigest =
      before === undefined ||
      before.manifestId ===
        this.#statements.findStoredId.get(bytesOf(digest))?.id
        ? undefined
        : this.#roots.lists.get(key, { kind: "tag", tag })?.digest;
    const { changes } = this.#statements.putTag.run({
      repositoryId,
      tag,
      digest: bytesOf(digest),
      ...times,
    });
    const manifest = this.#statements.findStoredId.get(bytesOf(digest));
    if (changes === 0 || manifest === undefined) {
      throw new IndexError(`putTag: got ${digest}; expected a stored manifest`);
    }
    const isPinnedAgain = this.#roots.onTagPut(
      repositoryId,
      tag,
      manifest.id,
      before,
    );
    if (manifest.id === before?.manifestId && !isPinnedAgain) return NO_CHANGE;
    return {
      result: undefined,
      changes: [
        ...this.#tagNow(key, tag),
        ...this.#unlessRoot(key, digest),
        ...(leftDigest === undefined
          ? []
          : this.#digestRootNow(key, leftDigest)),
      ],
    };
  }

  /**
   * Runs a write that stores a manifest or links it to a repository. The manifest becomes a root if
   * no tag or index names it.
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
      ? NO_CHANGE
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
    if (before === undefined || hold === undefined || hold.isHosted === 1) {
      return NO_CHANGE;
    }
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

  /** @returns false if there is neither the root nor its lost pin */
  setPinned(
    key: RepositoryKey,
    reference: Reference,
    isPinned: boolean,
  ): Changed<boolean> {
    const isFound = this.#roots.setPinned(
      key,
      this.#statements.findRepositoryId.get(pathOf(key))?.id,
      reference,
      isPinned,
    );
    if (!isFound) return { result: false, changes: [] };
    return { result: true, changes: this.#pinNow(key, reference, isPinned) };
  }

  keepLostPin(key: RepositoryKey, reference: Reference): Changed<void> {
    this.#roots.keepLostPin(this.#rows.repositoryId(key), reference);
    return {
      result: undefined,
      changes: this.#pinNow(key, reference, true),
    };
  }

  /** @returns false if there is no such root, or it was used or pinned since `usedAtMs` */
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
    // The journal has lines for lost pins, but not for blobs that are not manifests.
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

  /** The change for a digest that is a root. */
  #digestRootNow(key: RepositoryKey, digest: Digest): readonly RootChange[] {
    const reference = { kind: "digest", digest } as const;
    const root = this.#roots.lists.get(key, reference);
    if (root?.mediaType === undefined) return [];
    const { mediaType, isPinned } = root;
    return [{ key, reference, digest, mediaType, isPinned, atMs: undefined }];
  }

  /** A digest that is now named by its tag needs no line of its own. */
  #unlessRoot(key: RepositoryKey, digest: Digest): readonly RootChange[] {
    const reference = { kind: "digest", digest } as const;
    return this.#roots.lists.get(key, reference) === undefined
      ? [{ ...gone(key, reference), isNamed: true }]
      : [];
  }

  /** The change for the tag as its row is now. */
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

const NO_CHANGE: Changed<void> = { result: undefined, changes: [] };

/** Returns the change of a name that the index no longer has. */
export function gone(key: RepositoryKey, reference: Reference): RootChange {
  return {
    key,
    reference,
    digest: undefined,
    mediaType: undefined,
    isPinned: false,
    atMs: undefined,
  };
}
