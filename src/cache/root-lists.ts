import type { Digest } from "../oci/digest.ts";
import type { Reference, RepositoryName, Tag } from "../oci/reference.ts";
import { bytesOf, digestFrom, pathOf } from "./index-keys.ts";
import type { RepositoryKey } from "./metadata-index.ts";
import type {
  ChildPage,
  GraphNode,
  RootCursor,
  RootPage,
  RootRow,
} from "./root-index.ts";
import {
  MAX_COUNTED_HOLDERS,
  type NodeColumns,
  type OtherRootColumns,
  type RootStatements,
  type TagRootColumns,
} from "./root-statements.ts";

/** Children are read so many at a time: a manifest may name ten thousand. */
const CHILDREN_AT_ONCE = 256;
/** No name of a repository sorts before it: the path of what belongs to nobody. */
export const NOBODYS_PATH = "/";

/** Reads roots in their orders, and the graphs below them. */
export class RootLists {
  readonly #statements: RootStatements;

  constructor(statements: RootStatements) {
    this.#statements = statements;
  }

  oldest(limit: number, after: RootCursor | undefined): RootPage {
    let tagAt = after?.tag ?? ([-1, 0, ""] as const);
    let otherAt = after?.other ?? ([-1, 0, 0] as const);
    const tags = this.#statements.oldestTags.all(...tagAt, limit);
    const others = this.#statements.oldestOthers.all(...otherAt, limit);
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

  images(
    limit: number,
    after: Pick<RootRow, "key" | "reference"> | undefined,
  ): readonly RootRow[] {
    const { tagsOfRepository, rootsOfRepository, nextRepository } =
      this.#statements;
    const found: RootRow[] = [];
    let path = after === undefined ? NOBODYS_PATH : pathOf(after.key);
    let tag = "";
    let blobId = 0;
    let isWithin = after !== undefined;
    if (after?.reference.kind === "tag") tag = after.reference.tag;
    if (after?.reference.kind === "digest") {
      blobId =
        this.#statements.findBlob.get(bytesOf(after.reference.digest))?.id ?? 0;
    }
    let skipsTags = after?.reference.kind === "digest";
    for (;;) {
      if (isWithin) {
        if (!skipsTags) {
          found.push(
            ...tagsOfRepository
              .all(path, tag, limit - found.length)
              .map(tagRoot),
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
      [path, tag, blobId, skipsTags, isWithin] = [
        next.path,
        "",
        0,
        false,
        true,
      ];
    }
  }

  get(key: RepositoryKey, reference: Reference): RootRow | undefined {
    if (reference.kind === "tag") {
      const row = this.#statements.getTagRoot.get(pathOf(key), reference.tag);
      return row && tagRoot(row);
    }
    const row = this.#statements.getOtherRoot.get(
      bytesOf(reference.digest),
      pathOf(key),
    );
    return row && otherRoot(row);
  }

  node(digest: Digest): GraphNode | undefined {
    const row = this.#statements.getNode.get(bytesOf(digest));
    return row && graphNode(row);
  }

  children(parent: Digest, after: number | undefined): ChildPage {
    const rows = this.#statements.listChildren.all(
      bytesOf(parent),
      after ?? 0,
      CHILDREN_AT_ONCE,
    );
    return {
      nodes: rows.map(graphNode),
      next: rows.length < CHILDREN_AT_ONCE ? undefined : rows.at(-1)?.id,
    };
  }
}

function tagRoot(row: TagRootColumns): RootRow {
  return {
    key: keyOf(row),
    reference: { kind: "tag", tag: row.tag as Tag },
    digest: digestFrom(row.digest),
    mediaType: row.mediaType,
    usedAtMs: row.usedAtMs,
    isPinned: row.isPinned === 1,
  };
}

function otherRoot(row: OtherRootColumns): RootRow {
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

function graphNode(row: NodeColumns): GraphNode {
  return {
    digest: digestFrom(row.digest),
    sizeBytes: row.sizeBytes ?? undefined,
    isManifest: row.isManifest === 1,
    holders: row.holders >= MAX_COUNTED_HOLDERS ? Infinity : row.holders,
  };
}
