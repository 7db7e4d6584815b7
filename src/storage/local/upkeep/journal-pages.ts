import type { Database } from "better-sqlite3";
import type { RepositoryName, Tag } from "../../../oci/reference.ts";
import { digestFrom } from "../index/index-keys.ts";
import type { PinIndex } from "../../root-index.ts";
import type { JournalRoot } from "./journal-lines.ts";

const PAGE_ROWS = 500;
/** Pins are set by hand, so there are few. */
const MAX_LOST_PINS = 10_000;

interface RootColumns {
  readonly repositoryId: number;
  readonly upstream: string;
  readonly repository: string;
  readonly digest: Buffer;
  readonly mediaType: string;
}

/**
 * Reads from the index everything that the journal records: tags, digests that are roots, manifests
 * of hosted repositories, blobs that were deleted there, and lost pins.
 *
 * @throws the signal's reason, SQLite's errors, IndexError
 */
export async function* journalPages(
  database: Database,
  index: Pick<PinIndex, "listLostPins">,
  signal: AbortSignal,
  nowMs: number,
): AsyncGenerator<readonly JournalRoot[]> {
  yield (await index.listLostPins(MAX_LOST_PINS)).map((pin) => ({
    ...pin,
    digest: undefined,
    mediaType: undefined,
    isPinned: true,
    atMs: nowMs,
  }));
  yield* digestPages(database, signal, nowMs);
  yield* hostedPages(database, signal);
  yield* tagPages(database, signal);
  yield* unlinkedPages(database, signal);
}

async function* digestPages(
  database: Database,
  signal: AbortSignal,
  nowMs: number,
): AsyncGenerator<readonly JournalRoot[]> {
  const list = database.prepare<
    [number, number, number],
    RootColumns & { readonly blobId: number; readonly isPinned: 0 | 1 }
  >(
    `SELECT roots.blob_id AS blobId, roots.repository_id AS repositoryId, repositories.upstream,
       repositories.name AS repository, digests.digest, media_types.name AS mediaType,
       roots.is_pinned AS isPinned
     FROM roots
     CROSS JOIN repositories ON repositories.id = roots.repository_id
     CROSS JOIN digests ON digests.id = roots.blob_id
     CROSS JOIN manifests ON manifests.id = roots.blob_id
     LEFT JOIN links ON links.blob_id = roots.blob_id
       AND links.repository_id = roots.repository_id
     CROSS JOIN media_types ON media_types.id =
       coalesce(links.media_type_id, manifests.media_type_id)
     WHERE (roots.blob_id, roots.repository_id) > (?, ?) AND repositories.upstream <> ''
     ORDER BY roots.blob_id, roots.repository_id LIMIT ?`,
  );
  let after = { blobId: 0, repositoryId: 0 };
  for (;;) {
    signal.throwIfAborted();
    const rows = list.all(after.blobId, after.repositoryId, PAGE_ROWS);
    const last = rows.at(-1);
    if (last === undefined) return;
    after = last;
    yield rows.map((row) => {
      const digest = digestFrom(row.digest);
      return {
        key: keyOf(row),
        reference: { kind: "digest", digest },
        digest,
        mediaType: row.mediaType,
        isPinned: row.isPinned === 1,
        atMs: nowMs,
      };
    });
  }
}

async function* hostedPages(
  database: Database,
  signal: AbortSignal,
): AsyncGenerator<readonly JournalRoot[]> {
  const list = database.prepare<
    [number, Buffer, number],
    RootColumns & { readonly pushedAtMs: number; readonly isPinned: 0 | 1 }
  >(
    `SELECT hosted_manifests.repository_id AS repositoryId, repositories.upstream,
       repositories.name AS repository, hosted_manifests.digest, media_types.name AS mediaType,
       hosted_manifests.pushed_at_ms AS pushedAtMs, coalesce(roots.is_pinned, 0) AS isPinned
     FROM hosted_manifests
     CROSS JOIN repositories ON repositories.id = hosted_manifests.repository_id
     CROSS JOIN manifests ON manifests.id = hosted_manifests.blob_id
     CROSS JOIN links ON links.blob_id = hosted_manifests.blob_id
       AND links.repository_id = hosted_manifests.repository_id
     CROSS JOIN media_types ON media_types.id =
       coalesce(links.media_type_id, manifests.media_type_id)
     LEFT JOIN roots ON roots.blob_id = hosted_manifests.blob_id
       AND roots.repository_id = hosted_manifests.repository_id
     WHERE (hosted_manifests.repository_id, hosted_manifests.digest) > (?, ?)
     ORDER BY hosted_manifests.repository_id, hosted_manifests.digest LIMIT ?`,
  );
  let after: Pick<RootColumns, "repositoryId" | "digest"> = {
    repositoryId: 0,
    digest: Buffer.alloc(0),
  };
  for (;;) {
    signal.throwIfAborted();
    const rows = list.all(after.repositoryId, after.digest, PAGE_ROWS);
    const last = rows.at(-1);
    if (last === undefined) return;
    after = last;
    yield rows.map((row) => {
      const digest = digestFrom(row.digest);
      return {
        key: keyOf(row),
        reference: { kind: "digest", digest },
        digest,
        mediaType: row.mediaType,
        isPinned: row.isPinned === 1,
        isHosted: true,
        atMs: row.pushedAtMs,
      };
    });
  }
}

async function* tagPages(
  database: Database,
  signal: AbortSignal,
): AsyncGenerator<readonly JournalRoot[]> {
  const list = database.prepare<
    [number, string, number],
    RootColumns & {
      readonly tag: string;
      readonly fetchedAtMs: number;
      readonly isPinned: 0 | 1;
      readonly isHosted: 0 | 1;
    }
  >(
    `SELECT tags.repository_id AS repositoryId, repositories.upstream,
       repositories.name AS repository, tags.name AS tag, digests.digest,
       media_types.name AS mediaType, tags.fetched_at_ms AS fetchedAtMs,
       tags.is_pinned AS isPinned, tags.is_hosted AS isHosted
     FROM tags
     CROSS JOIN repositories ON repositories.id = tags.repository_id
     CROSS JOIN digests ON digests.id = tags.manifest_id
     CROSS JOIN manifests ON manifests.id = tags.manifest_id
     LEFT JOIN links ON links.blob_id = tags.manifest_id
       AND links.repository_id = tags.repository_id
     CROSS JOIN media_types ON media_types.id =
       coalesce(links.media_type_id, manifests.media_type_id)
     WHERE (tags.repository_id, tags.name) > (?, ?)
     ORDER BY tags.repository_id, tags.name LIMIT ?`,
  );
  let after = { repositoryId: 0, tag: "" };
  for (;;) {
    signal.throwIfAborted();
    const rows = list.all(after.repositoryId, after.tag, PAGE_ROWS);
    const last = rows.at(-1);
    if (last === undefined) return;
    after = last;
    yield rows.map((row) => ({
      key: keyOf(row),
      reference: { kind: "tag", tag: row.tag as Tag },
      digest: digestFrom(row.digest),
      mediaType: row.mediaType,
      isPinned: row.isPinned === 1,
      ...(row.isHosted === 1 ? { isHosted: true } : {}),
      atMs: row.fetchedAtMs,
    }));
  }
}

async function* unlinkedPages(
  database: Database,
  signal: AbortSignal,
): AsyncGenerator<readonly JournalRoot[]> {
  const list = database.prepare<
    [number, Buffer, number],
    Omit<RootColumns, "mediaType"> & { readonly unlinkedAtMs: number }
  >(
    `SELECT hosted_unlinked.repository_id AS repositoryId, repositories.upstream,
       repositories.name AS repository, hosted_unlinked.digest,
       hosted_unlinked.unlinked_at_ms AS unlinkedAtMs
     FROM hosted_unlinked
     CROSS JOIN repositories ON repositories.id = hosted_unlinked.repository_id
     WHERE (hosted_unlinked.repository_id, hosted_unlinked.digest) > (?, ?)
     ORDER BY hosted_unlinked.repository_id, hosted_unlinked.digest LIMIT ?`,
  );
  let after = { repositoryId: 0, digest: Buffer.alloc(0) as Buffer };
  for (;;) {
    signal.throwIfAborted();
    const rows = list.all(after.repositoryId, after.digest, PAGE_ROWS);
    const last = rows.at(-1);
    if (last === undefined) return;
    after = last;
    yield rows.map((row) => ({
      key: keyOf(row),
      reference: { kind: "digest", digest: digestFrom(row.digest) },
      digest: undefined,
      mediaType: undefined,
      isPinned: false,
      isHosted: true,
      blob: "unlinked",
      atMs: row.unlinkedAtMs,
    }));
  }
}

function keyOf({
  upstream,
  repository,
}: Pick<RootColumns, "upstream" | "repository">): JournalRoot["key"] {
  return { upstream, repository: repository as RepositoryName };
}
