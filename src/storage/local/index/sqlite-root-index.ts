import type { Digest } from "../../../oci/digest.ts";
import type { Reference, RepositoryKey } from "../../../oci/reference.ts";
import { pathOf } from "./index-keys.ts";
import type { IndexParts } from "./index-parts.ts";
import type { IndexTransactions } from "./index-transactions.ts";
import type { ChildPage, GraphNode } from "../../graph-index.ts";
import type { IndexCursor } from "../../index-cursor.ts";
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
} from "../../root-index.ts";
import { SqliteHostedIndex } from "./hosted-index/sqlite-hosted-index.ts";
import type { SqliteRoots } from "./sqlite-roots.ts";
import { USE_SEPARATOR } from "./use-keys.ts";

/** The part of the SQLite index for images, pins and eviction. */
export class SqliteRootIndex
  extends SqliteHostedIndex
  implements ImageIndex, PinIndex, RetentionIndex
{
  readonly #parts: IndexParts;
  readonly #roots: SqliteRoots;
  readonly #transactions: IndexTransactions;
  /** Blobs that were listed for removal and whose caller has not reported the result yet. */
  readonly #beingRemoved = new Set<Digest>();

  constructor(parts: IndexParts) {
    super(parts);
    this.#parts = parts;
    this.#roots = parts.roots;
    this.#transactions = parts.transactions;
  }

  touchManifest(key: RepositoryKey, digest: Digest, atMs: number): void {
    this.#parts.accessTimes.note(pathOf(key) + USE_SEPARATOR + digest, atMs);
  }

  settleUses(): Promise<void> {
    return this.#parts.accessTimes.settle();
  }

  listOldestRoots(
    limit: number,
    after: IndexCursor | undefined,
  ): Promise<RootPage> {
    return this.#transactions.read("listOldestRoots", () =>
      this.#roots.lists.oldest(limit, after),
    );
  }

  listImages(
    limit: number,
    after: IndexCursor | RootName | undefined,
  ): Promise<ImagePage> {
    return this.#transactions.read("listImages", () =>
      this.#roots.lists.images(limit, after),
    );
  }

  getRoot(
    key: RepositoryKey,
    reference: Reference,
  ): Promise<RootRow | undefined> {
    return this.#transactions.read("getRoot", () =>
      this.#roots.lists.get(key, reference),
    );
  }

  getNode(digest: Digest): Promise<GraphNode | undefined> {
    return this.#transactions.read("getNode", () =>
      this.#roots.lists.node(digest),
    );
  }

  listChildren(
    parent: Digest,
    after: IndexCursor | undefined,
  ): Promise<ChildPage> {
    return this.#transactions.read("listChildren", () =>
      this.#roots.lists.children(parent, after),
    );
  }

  setPinned(
    key: RepositoryKey,
    reference: Reference,
    isPinned: boolean,
  ): Promise<boolean> {
    return this.#parts.writeRoots("setPinned", () =>
      this.#parts.rootChanges.setPinned(key, reference, isPinned),
    );
  }

  keepLostPin(key: RepositoryKey, reference: Reference): Promise<void> {
    return this.#parts.writeRoots("keepLostPin", () =>
      this.#parts.rootChanges.keepLostPin(key, reference),
    );
  }

  listLostPins(limit: number): Promise<readonly RootName[]> {
    return this.#transactions.read("listLostPins", () =>
      this.#roots.lostPins(limit),
    );
  }

  dropRoot(
    key: RepositoryKey,
    reference: Reference,
    usedAtMs?: number,
  ): Promise<boolean> {
    return this.#parts.writeRoots("dropRoot", () => {
      this.#parts.accessTimes.flush();
      return this.#parts.rootChanges.drop(key, reference, usedAtMs);
    });
  }

  listCondemned(
    limit: number,
    except: ReadonlySet<Digest>,
  ): Promise<readonly CondemnedBlob[]> {
    let listed: readonly CondemnedBlob[] = [];
    const unlist = (): void => {
      for (const { digest } of listed) this.#beingRemoved.delete(digest);
      listed = [];
    };
    return this.#transactions
      .write("listCondemned", () => {
        // The transaction may run again.
        unlist();
        listed = this.#roots.condemned(
          limit,
          new Set([...except, ...this.#beingRemoved]),
        );
        for (const { digest } of listed) this.#beingRemoved.add(digest);
        return listed;
      })
      .catch((error: unknown) => {
        unlist();
        throw error;
      });
  }

  releaseCondemned(digests: readonly Digest[]): Promise<void> {
    for (const digest of digests) this.#beingRemoved.delete(digest);
    return this.#transactions.write("releaseCondemned", () => {
      this.#roots.releaseCondemned(digests);
    });
  }

  isHosted(digest: Digest): Promise<boolean> {
    return this.#transactions.read("isHosted", () =>
      this.#roots.isHosted(digest),
    );
  }

  usedBytes(): Promise<number> {
    return this.#transactions.read(
      "usedBytes",
      () => this.#parts.size.usedBytes,
    );
  }

  dropUnrooted(): Promise<UnrootedStep> {
    return this.#transactions.write("dropUnrooted", () =>
      this.#parts.size.dropUnrooted(),
    );
  }

  forgetCondemned(digests: readonly Digest[]): Promise<void> {
    // If the write fails, the blobs stay marked and are listed again.
    for (const digest of digests) this.#beingRemoved.delete(digest);
    return this.#transactions.write("forgetCondemned", () => {
      this.#roots.forgetCondemned(digests);
      for (const digest of digests) this.#parts.intents.drop(digest);
    });
  }
}
