import type { RepositoryKey } from "../../../oci/reference.ts";
import { StorageError } from "../../blob-store.ts";
import { IndexError } from "../../metadata-index.ts";
import { pathOf } from "../index/index-keys.ts";
import type { IndexTransactions } from "../index/index-transactions.ts";
import type { Changed } from "../index/root-changes.ts";
import {
  type JournalName,
  type JournalRoot,
  lineOf,
  rootName,
} from "../upkeep/journal-lines.ts";
import type { RootChange, SyncedLines } from "../upkeep/roots-journal.ts";

/** Makes the writes of the index durable. */
export interface HostedDurability {
  /** Appends lines to the journal and syncs them. @throws StorageError: they may have been written */
  appendSynced(roots: readonly JournalRoot[]): Promise<SyncedLines>;
  /** Syncs all rows that are committed. @throws StorageError */
  syncRows(): Promise<void>;
  /** Records that a line may differ from its row, until the returned function is called. */
  doubt(): () => void;
}

export interface DurableWritesParts {
  readonly transactions: Pick<
    IndexTransactions,
    "rehearse" | "write" | "makeRoom"
  >;
  readonly durability: HostedDurability;
  /** Returns the line of a tag or manifest as its row is now. */
  readonly readNow: (name: JournalName) => RootChange;
  readonly nowMs: () => number;
}

/** Attempts of a write: another repository may use the quota, or a blob may be removed, after the plan. */
const MAX_ATTEMPTS = 5;
/** Bounds the names with doubtful lines while the disk rejects every line. */
const MAX_DOUBTFUL = 10_000;

interface Doubt {
  readonly names: Map<string, JournalName>;
  readonly end: () => void;
}

/**
 * Writes the rows of hosted repositories so that an acknowledged write is never lost: the lines of the
 * journal are synced, then the rows are committed and synced. The changes of one repository run one
 * after the other, so that lines and rows have the same order.
 *
 * If a write fails after its line may have been written, further lines state the rows of the index.
 * Until they are synced, changes of that repository are rejected.
 */
export class DurableWrites {
  readonly #parts: DurableWritesParts;
  /** The last change of each repository that is being changed. */
  readonly #turns = new Map<string, Promise<unknown>>();
  /** Names whose last line may differ from their row, by repository. */
  readonly #doubtful = new Map<string, Doubt>();

  constructor(parts: DurableWritesParts) {
    this.#parts = parts;
  }

  /**
   * Writes rows that need no line.
   *
   * @throws IndexError, StorageError
   */
  async write<T>(method: string, work: () => T): Promise<T> {
    const { transactions, durability } = this.#parts;
    const result = await transactions.write(method, work);
    await durability.syncRows();
    return result;
  }

  /**
   * Writes rows that the journal records. The work runs twice: first to learn its changes.
   *
   * @throws IndexError, StorageError
   */
  async change<T>(
    method: string,
    key: RepositoryKey,
    work: () => Changed<T>,
  ): Promise<T> {
    const result = await this.#inTurn(pathOf(key), () =>
      this.#change(method, pathOf(key), work),
    );
    await this.#parts.durability.syncRows();
    return result;
  }

  async #change<T>(
    method: string,
    path: string,
    work: () => Changed<T>,
  ): Promise<T> {
    const { transactions } = this.#parts;
    for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt += 1) {
      await this.#settleDoubts(path);
      const planned = await transactions.rehearse(method, work);
      const lines = await this.#append(path, planned.changes);
      try {
        const outcome = await transactions.write(method, () => {
          const written = work();
          if (!isSame(planned.changes, written.changes)) throw DIFFERS;
          return written;
        });
        lines?.settle();
        return outcome.result;
      } catch (error) {
        this.#doubt(path, planned.changes);
        lines?.settle();
        if (error !== DIFFERS) {
          await this.#settleDoubts(path).catch(() => undefined);
          throw error;
        }
      }
    }
    throw DIFFERS;
  }

  async #append(
    path: string,
    changes: readonly RootChange[],
  ): Promise<SyncedLines | undefined> {
    if (changes.length === 0) return undefined;
    const lines = changes.map((change) => this.#lineOf(change));
    try {
      return await this.#appendOnFullDisk(lines);
    } catch (error) {
      this.#doubt(path, changes);
      await this.#settleDoubts(path).catch(() => undefined);
      throw error;
    }
  }

  /** Appends lines; on a full disk it frees the reserve first, because otherwise no deletion could make room. */
  async #appendOnFullDisk(lines: readonly JournalRoot[]): Promise<SyncedLines> {
    const { transactions, durability } = this.#parts;
    try {
      return await durability.appendSynced(lines);
    } catch (error) {
      if (!isFull(error)) throw error;
      transactions.makeRoom();
      return durability.appendSynced(lines);
    }
  }

  #doubt(path: string, changes: readonly RootChange[]): void {
    if (changes.length === 0) return;
    const doubt = this.#doubtful.get(path) ?? {
      names: new Map<string, JournalName>(),
      end: this.#parts.durability.doubt(),
    };
    for (const change of changes) doubt.names.set(rootName(change), change);
    this.#doubtful.set(path, doubt);
  }

  /** Appends lines that state the rows of names whose last line may be wrong. */
  async #settleDoubts(path: string): Promise<void> {
    const doubt = this.#doubtful.get(path);
    if (doubt === undefined) {
      if (this.#countDoubts() < MAX_DOUBTFUL) return;
      throw new StorageError("write of the journal", "EIO");
    }
    const { transactions, readNow } = this.#parts;
    const changes = await transactions.rehearse("settleDoubts", () =>
      [...doubt.names.values()].map(readNow),
    );
    const lines = await this.#appendOnFullDisk(
      changes.map((change) => this.#lineOf(change)),
    );
    this.#doubtful.delete(path);
    doubt.end();
    lines.settle();
  }

  #countDoubts(): number {
    let count = 0;
    for (const { names } of this.#doubtful.values()) count += names.size;
    return count;
  }

  #lineOf({
    key,
    reference,
    digest,
    mediaType,
    isPinned,
    blob,
    atMs,
  }: RootChange): JournalRoot {
    return {
      key,
      reference,
      digest,
      mediaType,
      isPinned,
      isHosted: true,
      ...(blob === undefined ? {} : { blob }),
      atMs: atMs ?? this.#parts.nowMs(),
    };
  }

  async #inTurn<T>(path: string, work: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(path) ?? Promise.resolve();
    const turn = before.then(work);
    const ended = turn.catch(() => undefined);
    this.#turns.set(path, ended);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(path) === ended) this.#turns.delete(path);
    }
  }
}

function isFull(error: unknown): boolean {
  return error instanceof StorageError && error.code === "ENOSPC";
}

const DIFFERS = new IndexError(
  "the repository changed while its journal line was written",
);

/** Returns whether two plans make the same changes; their times may differ. */
function isSame(a: readonly RootChange[], b: readonly RootChange[]): boolean {
  return a.length === b.length && textOf(a) === textOf(b);
}

function textOf(changes: readonly RootChange[]): string {
  return changes.map((change) => lineOf({ ...change, atMs: 0 })).join("");
}
