import type { Database, Statement } from "better-sqlite3";
import type { KeptRecord, RecordKind } from "../../../kept-records.ts";

/** The step of the schema for documents of services. A released step is never changed. */
export const RECORDS_SCHEMA = `
  -- Documents of services: jobs that continue after a restart, names that could not be pulled.
  CREATE TABLE records (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    text TEXT NOT NULL,
    UNIQUE (kind, id)
  ) STRICT;
`;

/** The rows of documents of services. Writes run in the caller's transaction. */
export class RecordRows {
  readonly #put: Statement<[RecordKind, string, string]>;
  readonly #drop: Statement<[RecordKind, string]>;
  readonly #list: Statement<[RecordKind, string, number], KeptRecord>;

  constructor(database: Database) {
    this.#put = database.prepare(
      `INSERT INTO records (kind, id, text) VALUES (?, ?, ?)
       ON CONFLICT (kind, id) DO UPDATE SET text = excluded.text`,
    );
    this.#drop = database.prepare(
      `DELETE FROM records WHERE kind = ? AND id = ?`,
    );
    this.#list = database.prepare(
      `SELECT id, text FROM records WHERE kind = ? AND id > ? ORDER BY id LIMIT ?`,
    );
  }

  write(
    kind: RecordKind,
    put: readonly KeptRecord[],
    drop: readonly string[],
  ): void {
    for (const { id, text } of put) this.#put.run(kind, id, text);
    for (const id of drop) this.#drop.run(kind, id);
  }

  list(
    kind: RecordKind,
    limit: number,
    last: string | undefined,
  ): readonly KeptRecord[] {
    return this.#list.all(kind, last ?? "", limit);
  }
}
