import type { Database } from "better-sqlite3";

export type AuditTotals = Readonly<
  Record<
    "blobs" | "blobBytes" | "manifests" | "tags" | "lists" | "listBytes",
    number
  >
>;

/** Finds and repairs contradictions inside the index, independent of the blobs on disk. */
export class IndexHealth {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Returns the stored totals, and the totals of the counted rows. */
  compareTotals(): {
    readonly kept: AuditTotals;
    readonly counted: AuditTotals;
  } {
    const read = (sql: string): AuditTotals =>
      this.#database.prepare<[], AuditTotals>(sql).get() ?? {
        blobs: 0,
        blobBytes: 0,
        manifests: 0,
        tags: 0,
        lists: 0,
        listBytes: 0,
      };
    return {
      kept: read(
        `SELECT blobs, blob_bytes AS blobBytes, manifests, tags, lists, list_bytes AS listBytes
         FROM totals WHERE id = 1`,
      ),
      counted: read(
        `SELECT (SELECT count(*) FROM blobs) AS blobs,
           (SELECT coalesce(sum(size_bytes), 0) FROM blobs) AS blobBytes,
           (SELECT count(*) FROM manifests) AS manifests,
           (SELECT count(*) FROM tags) AS tags,
           (SELECT count(*) FROM referrers) + (SELECT count(*) FROM tag_lists) AS lists,
           (SELECT coalesce(sum(length(body)), 0) FROM referrers)
             + (SELECT coalesce(sum(length(body)), 0) FROM tag_lists) AS listBytes`,
      ),
    };
  }

  /** Replaces the stored totals by the counted ones. */
  putTotals(totals: AuditTotals): void {
    this.#database
      .prepare(
        `INSERT OR REPLACE INTO totals (id, blobs, blob_bytes, manifests, tags, lists, list_bytes)
         VALUES (1, :blobs, :blobBytes, :manifests, :tags, :lists, :listBytes)`,
      )
      .run(totals);
  }

  /** Counts blobs and tags that were used, stored or verified after this time. */
  countTimesAfter(ms: number): number {
    return (
      this.#database
        .prepare<[{ readonly ms: number }], { n: number }>(
          `SELECT (SELECT count(*) FROM blobs
               WHERE used_at_ms > :ms OR stored_at_ms > :ms OR verified_at_ms > :ms) +
             (SELECT count(*) FROM tags
               WHERE used_at_ms > :ms OR verified_at_ms > :ms OR fetched_at_ms > :ms) AS n`,
        )
        .get({ ms })?.n ?? 0
    );
  }

  /** Reduces later times to this time: rows that seem too new would never be evicted. */
  capTimes(ms: number): void {
    this.#database
      .transaction(() => {
        this.#database
          .prepare(
            `UPDATE blobs SET used_at_ms = min(used_at_ms, :ms),
               stored_at_ms = min(stored_at_ms, :ms), verified_at_ms = min(verified_at_ms, :ms)
             WHERE used_at_ms > :ms OR stored_at_ms > :ms OR verified_at_ms > :ms`,
          )
          .run({ ms });
        this.#database
          .prepare(
            `UPDATE tags SET used_at_ms = min(used_at_ms, ?), verified_at_ms = min(verified_at_ms, ?),
               fetched_at_ms = min(fetched_at_ms, ?)
             WHERE used_at_ms > ? OR verified_at_ms > ? OR fetched_at_ms > ?`,
          )
          .run(ms, ms, ms, ms, ms, ms);
      })
      .immediate();
  }

  /** Checks the whole file for damage and returns one text for each fault. */
  findDamage(): readonly string[] {
    return this.#database
      .prepare<[], string>("PRAGMA integrity_check(20)")
      .pluck()
      .all()
      .filter((line) => line !== "ok");
  }

  /** Lists tables with rows that refer to missing rows, for example `tags`. */
  findBrokenReferences(): readonly string[] {
    return [
      ...new Set(
        this.#database
          .prepare<[], { readonly table: string }>("PRAGMA foreign_key_check")
          .all()
          .map(({ table }) => table),
      ),
    ];
  }

  /** Deletes the rows of {@link findBrokenReferences}, repeatedly until none is left. */
  deleteBrokenReferences(): void {
    for (let round = 0; round < 10; round += 1) {
      const rows = this.#database
        .prepare<
          [],
          {
            readonly table: string;
            readonly rowid: number | null;
          }
        >("PRAGMA foreign_key_check")
        .all();
      if (rows.length === 0) return;
      this.#database
        .transaction(() => {
          for (const { table, rowid } of rows) {
            if (rowid !== null) {
              this.#database
                .prepare(`DELETE FROM "${table}" WHERE rowid = ?`)
                .run(rowid);
            }
          }
          // Rows of tables without row ids can only be found by their columns.
          this.#database.exec(
            `DELETE FROM links WHERE blob_id NOT IN (SELECT id FROM blobs)
               OR repository_id NOT IN (SELECT id FROM repositories);
             DELETE FROM edges WHERE parent_id NOT IN (SELECT id FROM manifests)
               OR child_id NOT IN (SELECT id FROM digests);
             DELETE FROM tags WHERE manifest_id NOT IN (SELECT id FROM manifests)
               OR repository_id NOT IN (SELECT id FROM repositories);
             DELETE FROM roots WHERE blob_id NOT IN (SELECT id FROM blobs)
               OR repository_id NOT IN (SELECT id FROM repositories);
             DELETE FROM lost_pins WHERE repository_id NOT IN (SELECT id FROM repositories)`,
          );
        })
        .immediate();
    }
  }
}
