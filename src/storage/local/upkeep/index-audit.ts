import type { DroppedTag } from "../../scrub-report.ts";
import type { Database, Statement } from "better-sqlite3";
import type { ChildDescriptor } from "../../../oci/descriptor.ts";
import type { Digest } from "../../../oci/digest.ts";
import type {
  RepositoryKey,
  RepositoryName,
  Tag,
} from "../../../oci/reference.ts";
import { IndexHealth } from "./index-health.ts";
import { bytesOf, parseDigestBytes } from "../index/index-keys.ts";

/** The row of a stored blob. */
export interface AuditRow {
  /** Rows are listed in this order. */
  readonly id: number;
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly storedAtMs: number;
  /** Present if the blob is a manifest. */
  readonly mediaType: string | undefined;
}

interface AuditColumns {
  readonly id: number;
  readonly digest: Buffer;
  readonly sizeBytes: number;
  readonly storedAtMs: number;
  readonly mediaType: string | null;
}

interface EdgeColumns {
  readonly digest: Buffer;
  readonly isManifest: 0 | 1;
  readonly isForeign: 0 | 1;
  readonly sizeBytes: number;
  readonly mediaType: string;
}

const ROW = `SELECT blobs.id, digests.digest, blobs.size_bytes AS sizeBytes,
    blobs.stored_at_ms AS storedAtMs, media_types.name AS mediaType
  FROM blobs
  JOIN digests ON digests.id = blobs.id
  LEFT JOIN manifests ON manifests.id = blobs.id
  LEFT JOIN media_types ON media_types.id = manifests.media_type_id`;

/**
 * Reads the whole index page by page, to compare it with the disk. Prepares its statements when it is
 * created, so it is created on demand. SQLite's errors are not wrapped.
 */
export class IndexAudit {
  readonly health: IndexHealth;
  readonly #database: Database;
  readonly #listRows: Statement<[number, number], AuditColumns>;
  readonly #findRow: Statement<[Buffer], AuditColumns>;
  readonly #isKnown: Statement<[Buffer]>;
  readonly #isMoving: Statement<[Buffer]>;
  readonly #isCondemned: Statement<[Buffer]>;

  /** @param database has the newest schema; may be the connection that serves requests */
  constructor(database: Database) {
    this.health = new IndexHealth(database);
    this.#database = database;
    this.#listRows = database.prepare(
      `${ROW} WHERE blobs.id > ? ORDER BY blobs.id LIMIT ?`,
    );
    this.#findRow = database.prepare(`${ROW} WHERE digests.digest = ?`);
    this.#isKnown = database.prepare(
      `SELECT 1 FROM digests
       WHERE digest = ? AND (EXISTS (SELECT 1 FROM blobs WHERE blobs.id = digests.id)
         OR EXISTS (SELECT 1 FROM intents WHERE intents.digest_id = digests.id))`,
    );
    this.#isMoving = database.prepare(
      `SELECT 1 FROM digests
       WHERE digest = ? AND (EXISTS (SELECT 1 FROM condemned WHERE blob_id = digests.id)
         OR EXISTS (SELECT 1 FROM intents WHERE intents.digest_id = digests.id))`,
    );
    this.#isCondemned = database.prepare(
      `SELECT 1 FROM condemned
       WHERE blob_id = (SELECT id FROM digests WHERE digest = ?)`,
    );
  }

  /** Lists rows after `afterId`, in the order of their ids. */
  listRows(afterId: number, limit: number): readonly AuditRow[] {
    return this.#listRows.all(afterId, limit).flatMap(auditRow);
  }

  findRow(digest: Digest): AuditRow | undefined {
    return this.#findRow.all(bytesOf(digest)).flatMap(auditRow).at(0);
  }

  /** Returns whether the index has the blob, or a fill is about to record it. */
  isKnown(digest: Digest): boolean {
    return this.#isKnown.get(bytesOf(digest)) !== undefined;
  }

  /** Returns whether the blob is being published or evicted, so that its row and its file may differ. */
  isMoving(digest: Digest): boolean {
    return this.#isMoving.get(bytesOf(digest)) !== undefined;
  }

  /** Returns whether the blob was being removed. */
  isCondemned(digest: Digest): boolean {
    return this.#isCondemned.get(bytesOf(digest)) !== undefined;
  }

  /** Returns the children and the subject of a manifest as the index has them. */
  readManifest(id: number): {
    readonly children: readonly ChildDescriptor[];
    readonly subject: Digest | undefined;
  } {
    const children = this.#database
      .prepare<[number], EdgeColumns>(
        `SELECT digests.digest, edges.is_manifest AS isManifest, edges.is_foreign AS isForeign,
           edges.size_bytes AS sizeBytes, media_types.name AS mediaType
         FROM edges
         JOIN digests ON digests.id = edges.child_id
         JOIN media_types ON media_types.id = edges.media_type_id
         WHERE edges.parent_id = ?`,
      )
      .all(id)
      .flatMap(({ digest, sizeBytes, mediaType, ...edge }) => {
        const child = parseDigestBytes(digest);
        return child === undefined
          ? []
          : [
              {
                digest: child,
                sizeBytes,
                mediaType,
                role: edge.isManifest ? "manifest" : "blob",
                isForeign: edge.isForeign === 1,
              } satisfies ChildDescriptor,
            ];
      });
    const subject = this.#database
      .prepare<[number], { readonly digest: Buffer }>(
        `SELECT digests.digest FROM manifests
         JOIN digests ON digests.id = manifests.subject_id WHERE manifests.id = ?`,
      )
      .get(id);
    return { children, subject: subject && parseDigestBytes(subject.digest) };
  }

  /** Returns the media type of a child manifest from any stored manifest that names it. */
  findEdgeMediaType(digest: Digest): string | undefined {
    return this.#database
      .prepare<[Buffer], { readonly name: string }>(
        `SELECT media_types.name FROM digests
         JOIN edges ON edges.child_id = digests.id AND edges.is_manifest
         JOIN media_types ON media_types.id = edges.media_type_id
         WHERE digests.digest = ? LIMIT 1`,
      )
      .get(bytesOf(digest))?.name;
  }

  /** Lists the repositories that may serve the blob. */
  listRepositories(id: number): readonly RepositoryKey[] {
    return this.#database
      .prepare<[number], { readonly upstream: string; readonly name: string }>(
        `SELECT upstream, name FROM links
         JOIN repositories ON repositories.id = links.repository_id
         WHERE links.blob_id = ?`,
      )
      .all(id)
      .map(repositoryKey);
  }

  /** Lists the tags that point to a manifest. */
  listTagsOf(id: number): readonly DroppedTag[] {
    return this.#database
      .prepare<
        [number],
        {
          readonly upstream: string;
          readonly name: string;
          readonly tag: string;
          readonly verifiedAtMs: number;
          readonly isPinned: 0 | 1;
        }
      >(
        `SELECT repositories.upstream, repositories.name, tags.name AS tag,
           tags.verified_at_ms AS verifiedAtMs, tags.is_pinned AS isPinned
         FROM tags JOIN repositories ON repositories.id = tags.repository_id
         WHERE tags.manifest_id = ?`,
      )
      .all(id)
      .map(({ tag, verifiedAtMs, isPinned, ...repository }) => ({
        key: repositoryKey(repository),
        tag: tag as Tag,
        verifiedAtMs,
        isPinned: isPinned === 1,
      }));
  }

  /** Returns the id of the row after which the background scrub continues. */
  readScrubPlace(): number {
    return (
      this.#database
        .prepare<[], { id: number }>("SELECT scrubbed_id AS id FROM state")
        .get()?.id ?? 0
    );
  }

  writeScrubPlace(id: number): void {
    this.#database.prepare("UPDATE state SET scrubbed_id = ?").run(id);
  }
}

function auditRow({
  digest,
  mediaType,
  ...row
}: AuditColumns): readonly AuditRow[] {
  const parsed = parseDigestBytes(digest);
  return parsed === undefined
    ? []
    : [{ ...row, digest: parsed, mediaType: mediaType ?? undefined }];
}

function repositoryKey({
  upstream,
  name,
}: {
  readonly upstream: string;
  readonly name: string;
}): RepositoryKey {
  return { upstream, repository: name as RepositoryName };
}
