import type { Database, Statement } from "better-sqlite3";
import {
  parseReference,
  type Reference,
  referenceText,
  type RepositoryName,
} from "../../../oci/reference.ts";
import type { RootName } from "../../root-index.ts";

interface LostPinColumns {
  readonly upstream: string;
  readonly name: string;
  readonly reference: string;
}

/**
 * The rows of pins whose manifest is not stored. Runs in the caller's transactions. Foreign keys
 * delete the rows of a blob, so its pins must be kept before it is deleted.
 */
export class LostPins {
  readonly #keepPinsOf: Statement<
    [{ readonly id: number; readonly digest: string }]
  >;
  readonly #keep: Statement<[number, string]>;
  readonly #take: Statement<[number, string]>;
  readonly #list: Statement<[number], LostPinColumns>;

  constructor(database: Database) {
    this.#keepPinsOf = database.prepare(
      `INSERT INTO lost_pins (repository_id, reference)
       SELECT repository_id, name FROM tags WHERE manifest_id = :id AND is_pinned
       UNION ALL
       SELECT repository_id, :digest FROM roots WHERE blob_id = :id AND is_pinned
       ON CONFLICT DO NOTHING`,
    );
    this.#keep = database.prepare(
      `INSERT INTO lost_pins (repository_id, reference) VALUES (?, ?) ON CONFLICT DO NOTHING`,
    );
    this.#take = database.prepare(
      `DELETE FROM lost_pins WHERE repository_id = ? AND reference = ?`,
    );
    this.#list = database.prepare(
      `SELECT repositories.upstream, repositories.name, lost_pins.reference
       FROM lost_pins
       CROSS JOIN repositories ON repositories.id = lost_pins.repository_id
       ORDER BY lost_pins.repository_id, lost_pins.reference LIMIT ?`,
    );
  }

  /** Keeps the pins of a manifest that is about to be deleted. */
  keepPinsOf(id: number, digest: string): void {
    this.#keepPinsOf.run({ id, digest });
  }

  keep(repositoryId: number, reference: Reference): void {
    this.#keep.run(repositoryId, referenceText(reference));
  }

  /** Removes the lost pin of a reference. @returns whether there was one */
  take(repositoryId: number, reference: Reference): boolean {
    return this.#take.run(repositoryId, referenceText(reference)).changes > 0;
  }

  list(limit: number): readonly RootName[] {
    return this.#list.all(limit).flatMap(({ upstream, name, reference }) => {
      const parsed = parseReference(reference);
      if (parsed === undefined) return [];
      const key = { upstream, repository: name as RepositoryName };
      return [{ key, reference: parsed }];
    });
  }
}
