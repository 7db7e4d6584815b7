import type { Digest } from "../../../oci/digest.ts";
import type {
  Reference,
  RepositoryKey,
  RepositoryName,
  Tag,
} from "../../../oci/reference.ts";
import {
  childCursor,
  imageCursor,
  type ImagePlace,
  oldestCursor,
  type OldestPlace,
  readChildCursor,
  readImageCursor,
  readOldestCursor,
} from "./cursors.ts";
import type { HostedRoots } from "./hosted-index/hosted-roots.ts";
import { bytesOf, digestFrom, pathOf } from "./index-keys.ts";
import type { ChildPage, GraphNode } from "../../graph-index.ts";
import type { IndexCursor } from "../../index-cursor.ts";
import type {
  ImagePage,
  RootName,
  RootPage,
  RootRow,
} from "../../root-index.ts";
import {
  MAX_COUNTED_HOLDERS,
  type NodeColumns,
  type OtherRootColumns,
  type RootStatements,
  type TagRootColumns,
} from "./root-statements.ts";

/** A manifest may name ten thousand children. */
const CHILDREN_PER_PAGE = 256;
/** Repositories without roots, and roots that are not images, that one page skips at most. */
const MAX_SKIPPED = 1_000;
/** The path of content that was found on disk and not requested since. It sorts before every other path. */
export const UNCLAIMED_PATH = "/";

/** Sorts before every digest. */
const NO_DIGEST = Buffer.alloc(0);
const OLDEST_START: OldestPlace = { tag: [-1, 0, ""], other: [-1, 0, 0] };

/** Reads roots by age and by name, and the graphs below them. */
export class RootLists {
  readonly #statements: RootStatements;
  readonly #hosted: HostedRoots;

  constructor(statements: RootStatements, hosted: HostedRoots) {
    this.#statements = statements;
    this.#hosted = hosted;
  }

  oldest(limit: number, after: IndexCursor | undefined): RootPage {
    let { tag: tagAt, other: otherAt } =
      after === undefined ? OLDEST_START : readOldestCursor(after);
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
      next:
        roots.length < limit
          ? undefined
          : oldestCursor({ tag: tagAt, other: otherAt }),
    };
  }

  images(limit: number, after: IndexCursor | RootName | undefined): ImagePage {
    const images: RootRow[] = [];
    let at: ImagePlace | undefined =
      typeof after === "string" ? readImageCursor(after) : after;
    for (let skipped = 0; skipped < MAX_SKIPPED;) {
      if (at !== undefined) {
        const wanted = limit - images.length;
        const roots = this.#restOfRepository(at, wanted);
        const found = roots.filter(({ mediaType }) => mediaType !== undefined);
        images.push(...found);
        skipped += roots.length - found.length;
        const last = roots.at(-1);
        if (last !== undefined) {
          at = { key: last.key, reference: last.reference };
          if (roots.length === wanted) return { images, next: imageCursor(at) };
        }
      }
      const next = this.#nextRepository(at);
      if (next === undefined) return { images, next: undefined };
      skipped += next.skipped;
      at = { key: next.key, reference: undefined };
    }
    return { images, next: at && imageCursor(at) };
  }

  /** Reads the following roots of a repository: tags by name, then digests, including those of blobs. */
  #restOfRepository(
    { key, reference }: ImagePlace,
    limit: number,
  ): readonly RootRow[] {
    const { tagsOfRepository } = this.#statements;
    const path = pathOf(key);
    if (reference?.kind === "digest") {
      return this.#othersOfRepository(path, reference.digest, limit);
    }
    const tags = tagsOfRepository
      .all(path, reference?.tag ?? "", limit)
      .map(tagRoot);
    const others =
      tags.length < limit
        ? this.#othersOfRepository(path, undefined, limit - tags.length)
        : [];
    return [...tags, ...others];
  }

  /** Reads the roots of a mirrored repository that are not tags, or the untagged manifests of a hosted one. */
  #othersOfRepository(
    path: string,
    after: Digest | undefined,
    limit: number,
  ): readonly RootRow[] {
    const { rootsOfRepository, findBlob } = this.#statements;
    const bytes = after === undefined ? NO_DIGEST : bytesOf(after);
    const rows = this.#hosted.isHostedRepository(path)
      ? this.#hosted.listUntagged(path, bytes, limit)
      : rootsOfRepository.all(path, findBlob.get(bytes)?.id ?? 0, limit);
    return rows.map(otherRoot);
  }

  /** Finds the next repository with roots, or the last one that was examined after many without. */
  #nextRepository(
    after: ImagePlace | undefined,
  ): { readonly key: RepositoryKey; readonly skipped: number } | undefined {
    let found: { key: RepositoryKey; skipped: number } | undefined;
    let skipped = 0;
    for (const row of this.#statements.nextRepositories.iterate(
      after === undefined ? UNCLAIMED_PATH : pathOf(after.key),
      MAX_SKIPPED,
    )) {
      if (row.hasRoots === 0) skipped++;
      found = { key: keyOf(row), skipped };
      if (row.hasRoots === 1) break;
    }
    return found;
  }

  get(key: RepositoryKey, reference: Reference): RootRow | undefined {
    if (reference.kind === "tag") {
      const row = this.#statements.getTagRoot.get(pathOf(key), reference.tag);
      return row && tagRoot(row);
    }
    const bytes = bytesOf(reference.digest);
    const path = pathOf(key);
    const row =
      this.#statements.getOtherRoot.get(bytes, path) ??
      this.#hosted.get(path, bytes);
    return row && otherRoot(row);
  }

  node(digest: Digest): GraphNode | undefined {
    const row = this.#statements.getNode.get(bytesOf(digest));
    return row && graphNode(row);
  }

  children(parent: Digest, after: IndexCursor | undefined): ChildPage {
    const rows = this.#statements.listChildren.all(
      bytesOf(parent),
      after === undefined ? 0 : readChildCursor(after),
      CHILDREN_PER_PAGE,
    );
    const last = rows.at(-1);
    return {
      nodes: rows.map(graphNode),
      next:
        last === undefined || rows.length < CHILDREN_PER_PAGE
          ? undefined
          : childCursor(last.id),
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
