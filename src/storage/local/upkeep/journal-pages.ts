import type { Database, Statement } from "better-sqlite3";
import type { RepositoryName, Tag } from "../../../oci/reference.ts";
import { digestFrom } from "../index/index-keys.ts";
import { mediaTypeJoins } from "../index/index-statements.ts";
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
  readonly isPinned: 0 | 1;
}

type Pages = Generator<readonly JournalRoot[]>;

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
  yield* manifestPages(database, signal);
  yield* tagPages(database, signal, "TRUE");
  yield* unlinkedPages(database, signal);
}

/**
 * Reads the names of hosted repositories: tags, manifests and deleted blobs.
 *
 * @throws the signal's reason, SQLite's errors, IndexError
 */
export function* hostedPages(database: Database, signal: AbortSignal): Pages {
  yield* tagPages(database, signal, "tags.is_hosted");
  yield* manifestPages(database, signal);
  yield* unlinkedPages(database, signal);
}

function* digestPages(
  database: Database,
  signal: AbortSignal,
  nowMs: number,
): Pages {
  const list = database.prepare<
    [number, number, number],
    RootColumns & { readonly blobId: number }
  >(
    `SELECT roots.blob_id AS blobId, roots.repository_id AS repositoryId, repositories.upstream,
       repositories.name AS repository, digests.digest, media_types.name AS mediaType,
       roots.is_pinned AS isPinned
     FROM roots
     CROSS JOIN repositories ON repositories.id = roots.repository_id
     CROSS JOIN digests ON digests.id = roots.blob_id
     ${mediaTypeJoins("roots.blob_id", "roots.repository_id")}
     WHERE (roots.blob_id, roots.repository_id) > (?, ?) AND repositories.upstream <> ''
     ORDER BY roots.blob_id, roots.repository_id LIMIT ?`,
  );
  yield* pagesOf({
    list,
    first: [0, 0],
    positionOf: ({ blobId, repositoryId }) => [blobId, repositoryId],
    rootOf: (row) => ({ ...digestOf(row), atMs: nowMs }),
    signal,
  });
}

function* manifestPages(database: Database, signal: AbortSignal): Pages {
  const list = database.prepare<
    [number, Buffer, number],
    RootColumns & { readonly pushedAtMs: number }
  >(
    `SELECT hosted_manifests.repository_id AS repositoryId, repositories.upstream,
       repositories.name AS repository, hosted_manifests.digest, media_types.name AS mediaType,
       hosted_manifests.pushed_at_ms AS pushedAtMs, coalesce(roots.is_pinned, 0) AS isPinned
     FROM hosted_manifests
     CROSS JOIN repositories ON repositories.id = hosted_manifests.repository_id
     ${mediaTypeJoins("hosted_manifests.blob_id", "hosted_manifests.repository_id")}
     LEFT JOIN roots ON roots.blob_id = hosted_manifests.blob_id
       AND roots.repository_id = hosted_manifests.repository_id
     WHERE (hosted_manifests.repository_id, hosted_manifests.digest) > (?, ?)
     ORDER BY hosted_manifests.repository_id, hosted_manifests.digest LIMIT ?`,
  );
  yield* pagesOf({
    list,
    first: [0, Buffer.alloc(0)],
    positionOf: ({ repositoryId, digest }) => [repositoryId, digest],
    rootOf: (row) => ({
      ...digestOf(row),
      isHosted: true,
      atMs: row.pushedAtMs,
    }),
    signal,
  });
}

/** @param condition SQL */
function* tagPages(
  database: Database,
  signal: AbortSignal,
  condition: "tags.is_hosted" | "TRUE",
): Pages {
  const list = database.prepare<
    [number, string, number],
    RootColumns & {
      readonly tag: string;
      readonly fetchedAtMs: number;
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
     ${mediaTypeJoins("tags.manifest_id", "tags.repository_id")}
     WHERE (tags.repository_id, tags.name) > (?, ?) AND ${condition}
     ORDER BY tags.repository_id, tags.name LIMIT ?`,
  );
  yield* pagesOf({
    list,
    first: [0, ""],
    positionOf: ({ repositoryId, tag }) => [repositoryId, tag],
    rootOf: (row) => ({
      ...digestOf(row),
      reference: { kind: "tag", tag: row.tag as Tag },
      ...(row.isHosted === 1 ? { isHosted: true } : {}),
      atMs: row.fetchedAtMs,
    }),
    signal,
  });
}

function* unlinkedPages(database: Database, signal: AbortSignal): Pages {
  const list = database.prepare<
    [number, Buffer, number],
    Omit<RootColumns, "mediaType" | "isPinned"> & {
      readonly unlinkedAtMs: number;
    }
  >(
    `SELECT hosted_unlinked.repository_id AS repositoryId, repositories.upstream,
       repositories.name AS repository, hosted_unlinked.digest,
       hosted_unlinked.unlinked_at_ms AS unlinkedAtMs
     FROM hosted_unlinked
     CROSS JOIN repositories ON repositories.id = hosted_unlinked.repository_id
     WHERE (hosted_unlinked.repository_id, hosted_unlinked.digest) > (?, ?)
     ORDER BY hosted_unlinked.repository_id, hosted_unlinked.digest LIMIT ?`,
  );
  yield* pagesOf({
    list,
    first: [0, Buffer.alloc(0)],
    positionOf: ({ repositoryId, digest }) => [repositoryId, digest],
    rootOf: (row) => ({
      key: keyOf(row),
      reference: { kind: "digest", digest: digestFrom(row.digest) },
      digest: undefined,
      mediaType: undefined,
      isPinned: false,
      isHosted: true,
      blob: "unlinked",
      atMs: row.unlinkedAtMs,
    }),
    signal,
  });
}

/** Reads rows page by page: each page begins after the position of the last row of the page before. */
function* pagesOf<Second, Row>({
  list,
  first,
  positionOf,
  rootOf,
  signal,
}: {
  readonly list: Statement<[number, Second, number], Row>;
  readonly first: readonly [number, Second];
  readonly positionOf: (row: Row) => readonly [number, Second];
  readonly rootOf: (row: Row) => JournalRoot;
  readonly signal: AbortSignal;
}): Pages {
  for (let after = first; ;) {
    signal.throwIfAborted();
    const rows = list.all(...after, PAGE_ROWS);
    const last = rows.at(-1);
    if (last === undefined) return;
    after = positionOf(last);
    yield rows.map(rootOf);
  }
}

function digestOf(row: RootColumns): Omit<JournalRoot, "atMs"> {
  const digest = digestFrom(row.digest);
  return {
    key: keyOf(row),
    reference: { kind: "digest", digest },
    digest,
    mediaType: row.mediaType,
    isPinned: row.isPinned === 1,
  };
}

function keyOf({
  upstream,
  repository,
}: Pick<RootColumns, "upstream" | "repository">): JournalRoot["key"] {
  return { upstream, repository: repository as RepositoryName };
}
