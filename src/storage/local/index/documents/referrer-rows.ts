import type { Database, Statement } from "better-sqlite3";
import type { Digest } from "../../../../oci/digest.ts";
import { bytesOf, pathOf } from "../index-keys.ts";
import type { ReferrersRow } from "../../../list-index.ts";
import type { RepositoryKey } from "../../../../oci/reference.ts";

/** Limits of the lists of all repositories together. The oldest lists are dropped first. */
export interface ListBounds {
  readonly lists: number;
  readonly bytes: number;
  /** The limit of one list; a longer one is not kept. */
  readonly listBytes: number;
}

const DEFAULT_BOUNDS: ListBounds = {
  lists: 100_000,
  bytes: 64 * 1024 * 1024,
  listBytes: 4 * 1024 * 1024,
};

interface PutParameters {
  readonly path: string;
  readonly subject: Buffer;
  readonly body: Buffer;
  readonly verifiedAtMs: number;
}

/**
 * The rows of referrers lists. A list exists as long as its subject is linked to the repository; lists
 * of other subjects are never written, because any client can name subjects. Writes run in the
 * caller's transaction.
 */
export class ReferrerRows {
  readonly #bounds: ListBounds;
  readonly #get: Statement<[string, Buffer], ReferrersRow>;
  readonly #put: Statement<[PutParameters]>;
  readonly #totals: Statement<
    [],
    { readonly lists: number; readonly bytes: number }
  >;
  readonly #dropOldest: Statement<[]>;

  constructor(database: Database, bounds: ListBounds = DEFAULT_BOUNDS) {
    this.#bounds = bounds;
    this.#get = database.prepare(
      `SELECT body, verified_at_ms AS verifiedAtMs FROM referrers
       WHERE repository_id = (SELECT id FROM repositories WHERE path = ?)
         AND subject_id = (SELECT id FROM digests WHERE digest = ?)`,
    );
    this.#put = database.prepare(
      `INSERT INTO referrers (subject_id, repository_id, body, verified_at_ms)
       SELECT blob_id, repository_id, :body, :verifiedAtMs FROM links
       WHERE blob_id = (SELECT id FROM digests WHERE digest = :subject)
         AND repository_id = (SELECT id FROM repositories WHERE path = :path)
       ON CONFLICT (subject_id, repository_id) DO UPDATE SET
         body = excluded.body, verified_at_ms = excluded.verified_at_ms`,
    );
    this.#totals = database.prepare(
      `SELECT lists, list_bytes AS bytes FROM totals WHERE id = 1`,
    );
    this.#dropOldest = database.prepare(
      `DELETE FROM referrers
       WHERE id = (SELECT id FROM referrers ORDER BY verified_at_ms LIMIT 1)`,
    );
  }

  get(key: RepositoryKey, subject: Digest): ReferrersRow | undefined {
    return this.#get.get(pathOf(key), bytesOf(subject));
  }

  /** @returns whether the list is kept: its subject is linked to the repository, and it is not too long */
  put(
    key: RepositoryKey,
    subject: Digest,
    { body, verifiedAtMs }: ReferrersRow,
  ): boolean {
    if (body.length > this.#bounds.listBytes) return false;
    const { changes } = this.#put.run({
      path: pathOf(key),
      subject: bytesOf(subject),
      body,
      verifiedAtMs,
    });
    if (changes > 0) this.#makeRoom();
    return changes > 0;
  }

  /** The lists exceed their limit by the bytes of one at most, so only a few are dropped. */
  #makeRoom(): void {
    for (;;) {
      const { lists = 0, bytes = 0 } = this.#totals.get() ?? {};
      if (lists <= this.#bounds.lists && bytes <= this.#bounds.bytes) return;
      if (this.#dropOldest.run().changes === 0) return;
    }
  }
}
