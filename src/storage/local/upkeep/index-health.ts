import type { Database } from "better-sqlite3";

export type AuditTotals = Readonly<
  Record<
    | "blobs"
    | "blobBytes"
    | "manifests"
    | "tags"
    | "lists"
    | "listBytes"
    | "hostedBytes"
    | "hostedLinks",
    number
  >
>;

/** The rows of `hosted_content` as they follow from the links. */
const HOSTED_CONTENT = `
  SELECT repositories.hosted_registry_id AS registry_id, hosted_links.blob_id, blobs.size_bytes,
    count(*) AS links
  FROM hosted_links
  JOIN repositories ON repositories.id = hosted_links.repository_id
  JOIN blobs ON blobs.id = hosted_links.blob_id
  WHERE repositories.hosted_registry_id IS NOT NULL
  GROUP BY 1, 2`;

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
        hostedBytes: 0,
        hostedLinks: 0,
      };
    return {
      kept: read(
        `SELECT blobs, blob_bytes AS blobBytes, manifests, tags, lists, list_bytes AS listBytes,
           (SELECT coalesce(sum(bytes), 0) FROM hosted_registries) AS hostedBytes,
           (SELECT coalesce(sum(links), 0) FROM hosted_content) AS hostedLinks
         FROM totals WHERE id = 1`,
      ),
      counted: read(
        `SELECT (SELECT count(*) FROM blobs) AS blobs,
           (SELECT coalesce(sum(size_bytes), 0) FROM blobs) AS blobBytes,
           (SELECT count(*) FROM manifests) AS manifests,
           (SELECT count(*) FROM tags) AS tags,
           (SELECT count(*) FROM referrers) + (SELECT count(*) FROM tag_lists) AS lists,
           (SELECT coalesce(sum(length(body)), 0) FROM referrers)
             + (SELECT coalesce(sum(length(body)), 0) FROM tag_lists) AS listBytes,
           (SELECT coalesce(sum(size_bytes), 0) FROM (${HOSTED_CONTENT})) AS hostedBytes,
           (SELECT count(*) FROM hosted_links) AS hostedLinks`,
      ),
    };
  }

  /** Replaces the stored totals by the counted ones. */
  putTotals(totals: AuditTotals): void {
    this.#database
      .transaction(() => {
        this.#database
          .prepare(
            `INSERT OR REPLACE INTO totals (id, blobs, blob_bytes, manifests, tags, lists, list_bytes)
             VALUES (1, :blobs, :blobBytes, :manifests, :tags, :lists, :listBytes)`,
          )
          .run(totals);
        // The triggers add the bytes of the registries.
        this.#database.exec(
          `DELETE FROM hosted_content;
           UPDATE hosted_registries SET bytes = 0;
           INSERT INTO hosted_content (registry_id, blob_id, size_bytes, links) ${HOSTED_CONTENT};`,
        );
      })
      .immediate();
  }

  /** Counts blobs, tags and hosted rows that were used, stored, verified or claimed after this time. */
  countTimesAfter(ms: number): number {
    return (
      this.#database
        .prepare<[{ readonly ms: number }], { n: number }>(
          `SELECT (SELECT count(*) FROM blobs
               WHERE used_at_ms > :ms OR stored_at_ms > :ms OR verified_at_ms > :ms) +
             (SELECT count(*) FROM tags
               WHERE used_at_ms > :ms OR verified_at_ms > :ms OR fetched_at_ms > :ms) +
             (SELECT count(*) FROM hosted_links WHERE claimed_at_ms > :ms) +
             (SELECT count(*) FROM hosted_manifests
               WHERE pushed_at_ms > :ms OR untagged_at_ms > :ms) AS n`,
        )
        .get({ ms })?.n ?? 0
    );
  }

  /** Reduces later times to this time: rows that seem too new would never be evicted or collected. */
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
        this.#database
          .prepare(
            `UPDATE hosted_links SET claimed_at_ms = :ms WHERE claimed_at_ms > :ms`,
          )
          .run({ ms });
        this.#database
          .prepare(
            `UPDATE hosted_manifests SET pushed_at_ms = min(pushed_at_ms, :ms),
               untagged_at_ms = min(untagged_at_ms, :ms)
             WHERE pushed_at_ms > :ms OR untagged_at_ms > :ms`,
          )
          .run({ ms });
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
             DELETE FROM lost_pins WHERE repository_id NOT IN (SELECT id FROM repositories);
             DELETE FROM uploads WHERE repository_id NOT IN (SELECT id FROM repositories);
             DELETE FROM hosted_links WHERE NOT EXISTS (
               SELECT 1 FROM links WHERE links.blob_id = hosted_links.blob_id
                 AND links.repository_id = hosted_links.repository_id);
             DELETE FROM hosted_manifests WHERE NOT EXISTS (
               SELECT 1 FROM hosted_links WHERE hosted_links.blob_id = hosted_manifests.blob_id
                 AND hosted_links.repository_id = hosted_manifests.repository_id)`,
          );
        })
        .immediate();
    }
  }
}
