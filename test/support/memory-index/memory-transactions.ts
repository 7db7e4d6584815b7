import type { RepositoryKey } from "../../../src/oci/reference.ts";
import type { BlobRow } from "../../../src/storage/blob-index.ts";
import { IndexError } from "../../../src/storage/metadata-index.ts";
import type { TagRow } from "../../../src/storage/tag-index.ts";
import { type Clock, systemClock } from "../../../src/telemetry/clock.ts";
import { MemoryHosted } from "./memory-hosted.ts";
import { MemoryLists } from "./memory-lists.ts";
import { MemoryRoots } from "./memory-roots.ts";
import { MemoryTables, type StoredRepository } from "./memory-tables.ts";

export interface MemoryParts {
  readonly tables: MemoryTables;
  readonly roots: MemoryRoots;
  readonly lists: MemoryLists;
  readonly hosted: MemoryHosted;
  readonly transactions: MemoryTransactions;
}

export function createMemoryParts(clock: Clock = systemClock): MemoryParts {
  const tables = new MemoryTables();
  const roots = new MemoryRoots(tables);
  return {
    tables,
    roots,
    hosted: new MemoryHosted(tables, roots, clock),
    lists: new MemoryLists(tables),
    transactions: new MemoryTransactions(tables),
  };
}

/** Runs each method of the index in one turn of the event loop, unless the index is closed. */
export class MemoryTransactions {
  readonly #tables: MemoryTables;
  /** Rows that were read since the last write. */
  readonly recentBlobs = new Map<string, BlobRow>();
  readonly recentTags = new Map<string, TagRow>();
  #isClosed = false;

  constructor(tables: MemoryTables) {
    this.#tables = tables;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  close(): void {
    this.#isClosed = true;
  }

  read<T>(work: () => T): Promise<T> {
    if (this.#isClosed) {
      return Promise.reject(new IndexError("the index is closed"));
    }
    return Promise.resolve().then(work);
  }

  write<T>(work: () => T): Promise<T> {
    return this.read(() => {
      this.recentBlobs.clear();
      this.recentTags.clear();
      return work();
    });
  }

  /** Writes to a repository that is known; `otherwise` is the result for an unknown one. */
  writeTo<T>(
    key: RepositoryKey,
    otherwise: T,
    work: (repository: StoredRepository) => T,
  ): Promise<T> {
    return this.write(() => {
      const repository = this.#tables.repository(key);
      return repository === undefined ? otherwise : work(repository);
    });
  }
}
