import type { RepositoryName, Tag } from "../oci/reference.ts";
import { bytesOf, digestFrom, pathOf } from "./index-keys.ts";
import type { RepositoryKey } from "./metadata-index.ts";
import type { RootCursor, RootPage, RootRow } from "./root-index.ts";
import type {
  OtherRootColumns,
  RootStatements,
  TagRootColumns,
} from "./root-statements.ts";

/** No name of a repository sorts before it: the path of what belongs to nobody. */
export const NOBODYS_PATH = "/";

/** Tags and other roots in the order of their last use. */
export function oldestRoots(
  statements: RootStatements,
  limit: number,
  after: RootCursor | undefined,
): RootPage {
  let tagAt = after?.tag ?? ([-1, 0, ""] as const);
  let otherAt = after?.other ?? ([-1, 0, 0] as const);
  const tags = statements.oldestTags.all(...tagAt, limit);
  const others = statements.oldestOthers.all(...otherAt, limit);
  const roots: RootRow[] = [];
  let [t, o] = [0, 0];
  while (roots.length < limit) {
    const tag = tags[t];
    const other = others[o];
    if (tag === undefined && other === undefined) break;
    if (
      other === undefined ||
      (tag !== undefined && tag.usedAtMs <= other.usedAtMs)
    ) {
      if (tag === undefined) break;
      roots.push(tagRoot(tag));
      tagAt = [tag.usedAtMs, tag.repositoryId, tag.tag];
      t++;
    } else {
      roots.push(otherRoot(other));
      otherAt = [other.usedAtMs, other.blobId, other.repositoryId];
      o++;
    }
  }
  return {
    roots,
    next: roots.length < limit ? undefined : { tag: tagAt, other: otherAt },
  };
}

/** The images of one repository after the other. */
export function listImages(
  statements: RootStatements,
  limit: number,
  after: Pick<RootRow, "key" | "reference"> | undefined,
): readonly RootRow[] {
  const { tagsOfRepository, rootsOfRepository, nextRepository } = statements;
  const found: RootRow[] = [];
  let path = after === undefined ? NOBODYS_PATH : pathOf(after.key);
  let tag = "";
  let blobId = 0;
  let isWithin = after !== undefined;
  if (after?.reference.kind === "tag") tag = after.reference.tag;
  if (after?.reference.kind === "digest") {
    blobId = statements.findBlob.get(bytesOf(after.reference.digest))?.id ?? 0;
  }
  let skipsTags = after?.reference.kind === "digest";
  for (;;) {
    if (isWithin) {
      if (!skipsTags) {
        found.push(
          ...tagsOfRepository.all(path, tag, limit - found.length).map(tagRoot),
        );
      }
      if (found.length < limit) {
        found.push(
          ...rootsOfRepository
            .all(path, blobId, limit - found.length)
            .map(otherRoot),
        );
      }
      if (found.length >= limit) return found;
    }
    const next = nextRepository.get(path);
    if (next === undefined) return found;
    [path, tag, blobId, skipsTags, isWithin] = [next.path, "", 0, false, true];
  }
}

export function tagRoot(row: TagRootColumns): RootRow {
  return {
    key: keyOf(row),
    reference: { kind: "tag", tag: row.tag as Tag },
    digest: digestFrom(row.digest),
    mediaType: row.mediaType,
    usedAtMs: row.usedAtMs,
    isPinned: row.isPinned === 1,
  };
}

export function otherRoot(row: OtherRootColumns): RootRow {
  const digest = digestFrom(row.digest);
  return {
    key: keyOf(row),
    reference: { kind: "digest", digest },
    digest,
    mediaType: row.mediaType ?? undefined,
    usedAtMs: row.usedAtMs,
    isPinned: row.isPinned === 1,
  };
}

function keyOf(row: {
  readonly upstream: string;
  readonly repository: string;
}): RepositoryKey {
  return {
    upstream: row.upstream,
    repository: row.repository as RepositoryName,
  };
}
