import type { Database, Statement } from "better-sqlite3";
import type { UnrootedStep } from "../../root-index.ts";

/** Bounds of one step, which then takes a millisecond or two. */
const REPOSITORIES_PER_STEP = 64;
const LINKS_PER_STEP = 500;

/**
 * Measures the index and drops rows that do not belong to stored content: links of repositories
 * without a tag and without another root. A client creates such a link with one HEAD of a name of
 * its choice.
 */
export class IndexSize {
  readonly #database: Database;
  readonly #listUnrooted: Statement<
    [number, number],
    { readonly id: number; readonly isRooted: 0 | 1 }
  >;
  readonly #deleteLinks: Statement<[number, number]>;
  readonly #deleteRepository: Statement<[number]>;
  #after = 0;

  constructor(database: Database) {
    this.#database = database;
    this.#listUnrooted = database.prepare(
      `SELECT id, upstream = ''
         OR EXISTS (SELECT 1 FROM tags WHERE tags.repository_id = repositories.id)
         OR EXISTS (SELECT 1 FROM roots WHERE roots.repository_id = repositories.id)
         OR EXISTS (SELECT 1 FROM intents WHERE intents.repository_id = repositories.id)
         OR EXISTS (SELECT 1 FROM lost_pins WHERE lost_pins.repository_id = repositories.id)
         OR EXISTS (SELECT 1 FROM uploads WHERE uploads.repository_id = repositories.id)
         OR EXISTS (SELECT 1 FROM hosted_unlinked WHERE hosted_unlinked.repository_id = repositories.id)
         OR hosted_registry_id IS NOT NULL
           AND EXISTS (SELECT 1 FROM links WHERE links.repository_id = repositories.id)
         AS isRooted
       FROM repositories WHERE id > ? ORDER BY id LIMIT ?`,
    );
    this.#deleteLinks = database.prepare(
      `DELETE FROM links WHERE (blob_id, repository_id) IN
         (SELECT blob_id, repository_id FROM links WHERE repository_id = ? LIMIT ?)`,
    );
    this.#deleteRepository = database.prepare(
      `DELETE FROM repositories WHERE id = ?`,
    );
  }

  /** Bytes of the pages in use; the file also has free pages, which it reuses. */
  get usedBytes(): number {
    const read = (name: string): number =>
      Number(this.#database.pragma(name, { simple: true }));
    return (read("page_count") - read("freelist_count")) * read("page_size");
  }

  /** Continues after the previous step. Runs in the caller's transaction. */
  dropUnrooted(): UnrootedStep {
    const found = this.#listUnrooted.all(this.#after, REPOSITORIES_PER_STEP);
    let rows = 0;
    for (const { id, isRooted } of found) {
      if (isRooted === 0) {
        const links = this.#deleteLinks.run(id, LINKS_PER_STEP - rows).changes;
        rows += links;
        // The next step deletes the rest of this repository.
        if (rows >= LINKS_PER_STEP) return { rows, isEnd: false };
        this.#deleteRepository.run(id);
      }
      this.#after = id;
    }
    const isEnd = found.length < REPOSITORIES_PER_STEP;
    if (isEnd) this.#after = 0;
    return { rows, isEnd };
  }
}
