import type { Database, Statement } from "better-sqlite3";
import { pathOf } from "../index-keys.ts";
import type { TagListRow } from "../../../list-index.ts";
import type { ListBounds } from "./referrer-rows.ts";
import type { RepositoryKey } from "../../../../oci/reference.ts";

/** Clients list a thousand repositories at most; few lists have more than some KiB. */
const DEFAULT_BOUNDS: ListBounds = {
  lists: 1_000,
  bytes: 16 * 1024 * 1024,
  listBytes: 4 * 1024 * 1024,
};

interface PutParameters {
  readonly path: string;
  readonly body: Buffer;
  readonly fetchedAtMs: number;
}

/**
 * The rows of the last list of tags of each repository with a link. A list is deleted with its
 * repository; the oldest lists are dropped first. Writes run in the caller's transaction.
 */
export class TagListRows {
  readonly #bounds: ListBounds;
  readonly #get: Statement<[string], TagListRow>;
  readonly #put: Statement<[PutParameters]>;
  readonly #drop: Statement<[string]>;
  readonly #totals: Statement<
    [],
    { readonly lists: number; readonly bytes: number }
  >;
  readonly #dropOldest: Statement<[]>;

  constructor(database: Database, bounds: ListBounds = DEFAULT_BOUNDS) {
    this.#bounds = bounds;
    this.#get = database.prepare(
      `SELECT body, fetched_at_ms AS fetchedAtMs FROM tag_lists
       WHERE repository_id = (SELECT id FROM repositories WHERE path = ?)`,
    );
    this.#put = database.prepare(
      `INSERT INTO tag_lists (repository_id, body, fetched_at_ms)
       SELECT id, :body, :fetchedAtMs FROM repositories
       WHERE path = :path AND EXISTS (SELECT 1 FROM links WHERE repository_id = repositories.id)
       ON CONFLICT (repository_id) DO UPDATE SET
         body = excluded.body, fetched_at_ms = excluded.fetched_at_ms`,
    );
    this.#drop = database.prepare(
      `DELETE FROM tag_lists
       WHERE repository_id = (SELECT id FROM repositories WHERE path = ?)`,
    );
    // Reads no more rows than the limit of lists.
    this.#totals = database.prepare(
      `SELECT count(*) AS lists, coalesce(sum(length(body)), 0) AS bytes FROM tag_lists`,
    );
    this.#dropOldest = database.prepare(
      `DELETE FROM tag_lists WHERE repository_id =
         (SELECT repository_id FROM tag_lists ORDER BY fetched_at_ms LIMIT 1)`,
    );
  }

  get(key: RepositoryKey): TagListRow | undefined {
    return this.#get.get(pathOf(key));
  }

  /** @returns whether the list is kept: the repository has a link, and the list is not too long */
  put(key: RepositoryKey, { body, fetchedAtMs }: TagListRow): boolean {
    if (body.length > this.#bounds.listBytes) {
      this.drop(key);
      return false;
    }
    const { changes } = this.#put.run({ path: pathOf(key), body, fetchedAtMs });
    if (changes > 0) this.#makeRoom();
    return changes > 0;
  }

  drop(key: RepositoryKey): void {
    this.#drop.run(pathOf(key));
  }

  #makeRoom(): void {
    for (;;) {
      const { lists = 0, bytes = 0 } = this.#totals.get() ?? {};
      if (lists <= this.#bounds.lists && bytes <= this.#bounds.bytes) return;
      if (this.#dropOldest.run().changes === 0) return;
    }
  }
}
