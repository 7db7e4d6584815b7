import type { Database, Statement } from "better-sqlite3";
import type { Digest } from "../../../oci/digest.ts";
import { bytesOf, parseDigestBytes } from "./index-keys.ts";
import type { RepositoryName } from "../../../oci/reference.ts";
import type { NotedIntent } from "../../blob-index.ts";

interface IntentColumns {
  readonly digest: Buffer;
  readonly upstream: string;
  readonly name: string;
  readonly sizeBytes: number;
  readonly mediaType: string | null;
  readonly isHosted: 0 | 1;
}

/** The rows of fill intents. Writes run in the caller's transaction. */
export class IntentRows {
  readonly #put: Statement<[number, number, number, number | null]>;
  readonly #drop: Statement<[Buffer]>;
  readonly #list: Statement<[], IntentColumns>;

  constructor(database: Database) {
    this.#put = database.prepare(
      `INSERT OR REPLACE INTO intents (digest_id, repository_id, size_bytes, media_type_id)
       VALUES (?, ?, ?, ?)`,
    );
    this.#drop = database.prepare(
      `DELETE FROM intents WHERE digest_id = (SELECT id FROM digests WHERE digest = ?)`,
    );
    this.#list = database.prepare(
      `SELECT digests.digest, repositories.upstream, repositories.name,
         intents.size_bytes AS sizeBytes, media_types.name AS mediaType,
         repositories.hosted_registry_id IS NOT NULL AS isHosted
       FROM intents
       JOIN digests ON digests.id = intents.digest_id
       JOIN repositories ON repositories.id = intents.repository_id
       LEFT JOIN media_types ON media_types.id = intents.media_type_id`,
    );
  }

  put(
    digestId: number,
    repositoryId: number,
    sizeBytes: number,
    mediaTypeId: number | null,
  ): void {
    this.#put.run(digestId, repositoryId, sizeBytes, mediaTypeId);
  }

  drop(digest: Digest): void {
    this.#drop.run(bytesOf(digest));
  }

  list(): readonly NotedIntent[] {
    return this.#list.all().flatMap(({ digest: bytes, ...row }) => {
      const digest = parseDigestBytes(bytes);
      if (digest === undefined) return [];
      const { upstream, name, sizeBytes, mediaType, isHosted } = row;
      return [
        {
          digest,
          key: { upstream, repository: name as RepositoryName },
          sizeBytes,
          ...(mediaType === null ? {} : { mediaType }),
          ...(isHosted === 1 ? { isHosted: true } : {}),
        },
      ];
    });
  }
}
