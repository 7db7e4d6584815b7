import type { Database, Statement } from "better-sqlite3";
import { mediaTypeJoins } from "../index-statements.ts";
import type { OtherRootColumns } from "../root-statements.ts";

const HOSTED_COLUMNS = `
  hosted_manifests.repository_id AS repositoryId, repositories.upstream,
  repositories.name AS repository, hosted_manifests.blob_id AS blobId, hosted_manifests.digest,
  media_types.name AS mediaType, blobs.used_at_ms AS usedAtMs,
  coalesce(roots.is_pinned, 0) AS isPinned`;
const HOSTED_JOINS = `
  CROSS JOIN blobs ON blobs.id = hosted_manifests.blob_id
  ${mediaTypeJoins("hosted_manifests.blob_id", "hosted_manifests.repository_id")}
  LEFT JOIN roots ON roots.blob_id = hosted_manifests.blob_id
    AND roots.repository_id = hosted_manifests.repository_id`;

/** Reads the manifests of hosted repositories in the form of roots. */
export class HostedRoots {
  readonly #isHostedRepository: Statement<[string]>;
  readonly #isHostedLink: Statement<[number, number]>;
  readonly #isHostedBlob: Statement<[Buffer]>;
  readonly #listUntagged: Statement<[string, Buffer, number], OtherRootColumns>;
  readonly #get: Statement<[Buffer, string], OtherRootColumns>;

  constructor(database: Database) {
    this.#isHostedRepository = database.prepare(
      `SELECT 1 FROM repositories WHERE path = (SELECT ?) AND hosted_registry_id IS NOT NULL`,
    );
    this.#isHostedLink = database.prepare(
      `SELECT 1 FROM hosted_links WHERE blob_id = (SELECT ?) AND repository_id = (SELECT ?)`,
    );
    this.#isHostedBlob = database.prepare(
      `SELECT 1 FROM hosted_links WHERE blob_id = (SELECT id FROM digests WHERE digest = (SELECT ?)) LIMIT 1`,
    );
    this.#listUntagged = database.prepare(
      `SELECT ${HOSTED_COLUMNS}
       FROM repositories
       CROSS JOIN hosted_manifests INDEXED BY hosted_manifests_untagged
         ON hosted_manifests.repository_id = repositories.id
       ${HOSTED_JOINS}
       WHERE repositories.path = (SELECT ?) AND hosted_manifests.digest > (SELECT ?)
         AND hosted_manifests.untagged_at_ms IS NOT NULL
       ORDER BY hosted_manifests.digest LIMIT ?`,
    );
    this.#get = database.prepare(
      `SELECT ${HOSTED_COLUMNS}
       FROM repositories
       CROSS JOIN hosted_manifests ON hosted_manifests.repository_id = repositories.id
         AND hosted_manifests.digest = (SELECT ?)
       ${HOSTED_JOINS}
       WHERE repositories.path = (SELECT ?)`,
    );
  }

  isHostedRepository(path: string): boolean {
    return this.#isHostedRepository.get(path) !== undefined;
  }

  isHostedLink(blobId: number, repositoryId: number): boolean {
    return this.#isHostedLink.get(blobId, repositoryId) !== undefined;
  }

  /** Returns whether any hosted repository holds the blob. */
  isHostedBlob(digest: Buffer): boolean {
    return this.#isHostedBlob.get(digest) !== undefined;
  }

  /** Lists manifests that nothing in the repository needs, in the order of their digests after `digest`. */
  listUntagged(
    path: string,
    digest: Buffer,
    limit: number,
  ): readonly OtherRootColumns[] {
    return this.#listUntagged.all(path, digest, limit);
  }

  get(path: string, digest: Buffer): OtherRootColumns | undefined {
    return this.#get.get(digest, path);
  }
}
