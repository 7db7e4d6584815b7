import type { Descriptor } from "../../../src/oci/descriptor.ts";
import type { Digest } from "../../../src/oci/digest.ts";
import type {
  Reference,
  RepositoryKey,
  Tag,
} from "../../../src/oci/reference.ts";
import type {
  BlobScope,
  ChildPage,
  GraphNode,
  ImageGraph,
} from "../../../src/storage/graph-index.ts";
import type { IndexCursor } from "../../../src/storage/index-cursor.ts";
import type { UseIndex } from "../../../src/storage/metadata-index.ts";
import type {
  CondemnedBlob,
  ImageIndex,
  ImagePage,
  PinIndex,
  RetentionIndex,
  RootName,
  RootPage,
  RootRow,
  UnrootedStep,
} from "../../../src/storage/root-index.ts";
import { MemoryHostedIndex } from "./memory-hosted-index.ts";
import type { MemoryLists } from "./memory-lists.ts";
import type { MemoryRoots } from "./memory-roots.ts";
import { type MemoryTables, pathOf } from "./memory-tables.ts";
import type { MemoryParts, MemoryTransactions } from "./memory-transactions.ts";

/** An estimate of the bytes of one row. */
const ROW_BYTES = 100;

/** The part of the index in memory that reads and evicts images. */
export class MemoryRootIndex
  extends MemoryHostedIndex
  implements ImageGraph, ImageIndex, PinIndex, RetentionIndex, UseIndex
{
  readonly #tables: MemoryTables;
  readonly #roots: MemoryRoots;
  readonly #lists: MemoryLists;
  readonly #transactions: MemoryTransactions;

  constructor(parts: MemoryParts) {
    super(parts);
    const { tables, roots, lists, transactions } = parts;
    this.#tables = tables;
    this.#roots = roots;
    this.#lists = lists;
    this.#transactions = transactions;
  }

  // --- the graph -------------------------------------------------------------------------------

  getNode(digest: Digest): Promise<GraphNode | undefined> {
    return this.#transactions.read(() => this.#lists.node(digest));
  }

  listChildren(
    parent: Digest,
    after: IndexCursor | undefined,
  ): Promise<ChildPage> {
    return this.#transactions.read(() => this.#lists.children(parent, after));
  }

  findDescriptor(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<Descriptor | undefined> {
    return this.#transactions.read(() =>
      this.#lists.findDescriptor(key, digest),
    );
  }

  isComplete(
    key: RepositoryKey,
    digest: Digest,
    scope: BlobScope,
  ): Promise<boolean> {
    return this.#transactions.read(() =>
      this.#lists.isComplete(key, digest, scope),
    );
  }

  // --- images, retention and pins --------------------------------------------------------------

  listImages(
    limit: number,
    after: IndexCursor | RootName | undefined,
  ): Promise<ImagePage> {
    return this.#transactions.read(() => this.#lists.images(limit, after));
  }

  getRoot(
    key: RepositoryKey,
    reference: Reference,
  ): Promise<RootRow | undefined> {
    return this.#transactions.read(() => this.#lists.get(key, reference));
  }

  listOldestRoots(
    limit: number,
    after: IndexCursor | undefined,
  ): Promise<RootPage> {
    return this.#transactions.read(() => this.#lists.oldest(limit, after));
  }

  dropRoot(
    key: RepositoryKey,
    reference: Reference,
    usedAtMs?: number,
  ): Promise<boolean> {
    return this.#transactions.writeTo(key, false, (repository) =>
      this.#roots.drop(repository, reference, usedAtMs),
    );
  }

  listCondemned(
    limit: number,
    except: ReadonlySet<Digest>,
  ): Promise<readonly CondemnedBlob[]> {
    return this.#transactions.write(() => this.#roots.condemned(limit, except));
  }

  forgetCondemned(digests: readonly Digest[]): Promise<void> {
    return this.#transactions.write(() => {
      for (const digest of digests) {
        this.#roots.forgetCondemned(digest);
        this.#tables.intents.delete(digest);
      }
    });
  }

  releaseCondemned(digests: readonly Digest[]): Promise<void> {
    return this.#transactions.write(() => {
      for (const digest of digests) this.#tables.beingRemoved.delete(digest);
    });
  }

  isHosted(digest: Digest): Promise<boolean> {
    return this.#transactions.read(() =>
      [...this.#tables.repositories.values()].some(({ hostedLinks }) =>
        hostedLinks.has(digest),
      ),
    );
  }

  usedBytes(): Promise<number> {
    return this.#transactions.read(() => {
      let rows = this.#tables.blobs.size;
      for (const { links, tags, roots } of this.#tables.repositories.values()) {
        rows += 1 + links.size + tags.size + roots.size;
      }
      return rows * ROW_BYTES;
    });
  }

  dropUnrooted(): Promise<UnrootedStep> {
    return this.#transactions.write(() => {
      const claimed = new Set(
        [
          ...this.#tables.intents.values(),
          ...this.#tables.uploads.values(),
        ].map(({ key }) => pathOf(key)),
      );
      let rows = 0;
      for (const repository of this.#tables.repositories.values()) {
        const { path, tags, roots, lostPins, links, isHosted } = repository;
        const isRooted =
          repository === this.#tables.unclaimed ||
          tags.size + roots.size + lostPins.size > 0 ||
          (isHosted && links.size > 0) ||
          claimed.has(path);
        if (isRooted) continue;
        rows += links.size;
        this.#tables.repositories.delete(path);
      }
      return { rows, isEnd: true };
    });
  }

  setPinned(
    key: RepositoryKey,
    reference: Reference,
    isPinned: boolean,
  ): Promise<boolean> {
    return this.#transactions.writeTo(key, false, (repository) =>
      this.#roots.setPinned(repository, reference, isPinned),
    );
  }

  keepLostPin(key: RepositoryKey, reference: Reference): Promise<void> {
    return this.#transactions.write(() => {
      this.#tables.makeRepository(key).keepLostPin(reference);
    });
  }

  listLostPins(limit: number): Promise<readonly RootName[]> {
    return this.#transactions.read(() =>
      [...this.#tables.repositories.values()]
        .flatMap(({ key, lostPins }) =>
          [...lostPins.values()].map((reference) => ({ key, reference })),
        )
        .slice(0, limit),
    );
  }

  // --- uses and state --------------------------------------------------------------------------

  touchBlob(digest: Digest, atMs: number): void {
    if (!this.#transactions.isClosed) this.#roots.touchBlob(digest, atMs);
  }

  touchTag(key: RepositoryKey, tag: Tag, atMs: number): void {
    if (!this.#transactions.isClosed) this.#roots.touchTag(key, tag, atMs);
  }

  touchManifest(key: RepositoryKey, digest: Digest, atMs: number): void {
    if (!this.#transactions.isClosed)
      this.#roots.touchManifest(key, digest, atMs);
  }

  settleUses(): Promise<void> {
    return Promise.resolve();
  }
}
