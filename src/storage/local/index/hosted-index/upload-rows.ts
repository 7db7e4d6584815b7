import type { Database, Statement } from "better-sqlite3";
import {
  DIGEST_ALGORITHMS,
  type DigestAlgorithm,
} from "../../../../oci/digest.ts";
import type { RepositoryName } from "../../../../oci/reference.ts";
import type { UploadId } from "../../../blob-store.ts";
import type { UploadRow } from "../../../hosted-index.ts";

interface UploadColumns {
  readonly id: string;
  readonly upstream: string;
  readonly name: string;
  readonly algorithm: string;
  readonly startedAtMs: number;
  readonly touchedAtMs: number;
}

const COLUMNS = `uploads.id, repositories.upstream, repositories.name, uploads.algorithm,
  uploads.started_at_ms AS startedAtMs, uploads.touched_at_ms AS touchedAtMs`;

/** The rows of upload sessions. Writes run in the caller's transaction. */
export class UploadRows {
  readonly #put: Statement<
    [
      {
        readonly id: string;
        readonly repositoryId: number;
        readonly algorithm: string;
        readonly startedAtMs: number;
        readonly touchedAtMs: number;
      },
    ]
  >;
  readonly #get: Statement<[string], UploadColumns>;
  readonly #drop: Statement<[string]>;
  readonly #list: Statement<[string, number], UploadColumns>;

  constructor(database: Database) {
    this.#put = database.prepare(
      `INSERT INTO uploads (id, repository_id, algorithm, started_at_ms, touched_at_ms)
       VALUES (:id, :repositoryId, :algorithm, :startedAtMs, :touchedAtMs)
       ON CONFLICT (id) DO UPDATE SET touched_at_ms = excluded.touched_at_ms`,
    );
    this.#get = database.prepare(
      `SELECT ${COLUMNS} FROM uploads
       CROSS JOIN repositories ON repositories.id = uploads.repository_id
       WHERE uploads.id = ?`,
    );
    this.#drop = database.prepare(`DELETE FROM uploads WHERE id = ?`);
    this.#list = database.prepare(
      `SELECT ${COLUMNS} FROM uploads
       CROSS JOIN repositories ON repositories.id = uploads.repository_id
       WHERE uploads.id > ? ORDER BY uploads.id LIMIT ?`,
    );
  }

  put(
    { id, algorithm, startedAtMs, touchedAtMs }: UploadRow,
    repositoryId: number,
  ): void {
    this.#put.run({ id, repositoryId, algorithm, startedAtMs, touchedAtMs });
  }

  get(id: UploadId): UploadRow | undefined {
    const row = this.#get.get(id);
    return row && uploadRow(row);
  }

  drop(id: UploadId): void {
    this.#drop.run(id);
  }

  list(limit: number, last: UploadId | undefined): readonly UploadRow[] {
    return this.#list.all(last ?? "", limit).map(uploadRow);
  }
}

function uploadRow({
  id,
  upstream,
  name,
  algorithm,
  ...times
}: UploadColumns): UploadRow {
  return {
    id: id as UploadId,
    key: { upstream, repository: name as RepositoryName },
    algorithm: algorithmOf(algorithm),
    ...times,
  };
}

function algorithmOf(text: string): DigestAlgorithm {
  return DIGEST_ALGORITHMS.find((known) => known === text) ?? "sha256";
}
