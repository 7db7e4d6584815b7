import type { Descriptor } from "../../../src/oci/descriptor.ts";
import type { Digest } from "../../../src/oci/digest.ts";
import {
  type Reference,
  referenceText,
  type RepositoryKey,
} from "../../../src/oci/reference.ts";
import type {
  BlobScope,
  ChildPage,
  GraphNode,
} from "../../../src/storage/graph-index.ts";
import type { IndexCursor } from "../../../src/storage/index-cursor.ts";
import type {
  ImagePage,
  RootName,
  RootPage,
  RootRow,
} from "../../../src/storage/root-index.ts";
import {
  type MemoryTables,
  pathOf,
  type StoredRepository,
} from "./memory-tables.ts";

const CHILDREN_PER_PAGE = 256;
/** Indexes of indexes below the requested one. */
const MAX_DEPTH = 4;

/** A sort key, most significant part first. */
type Place = readonly (string | number)[];

/** Reads roots in their orders, and the graphs below them. */
export class MemoryLists {
  readonly #tables: MemoryTables;

  constructor(tables: MemoryTables) {
    this.#tables = tables;
  }

  oldest(limit: number, after: IndexCursor | undefined): RootPage {
    const { rows: roots, next } = pageOf(
      this.#roots(this.#tables.repositories.values())
        .filter((root) => !root.isPinned && !this.#isHosted(root))
        .map((root) => ({ root, place: this.#agePlace(root) })),
      after === undefined ? undefined : (JSON.parse(after) as Place),
      limit,
    );
    return { roots, next };
  }

  images(limit: number, after: IndexCursor | RootName | undefined): ImagePage {
    const named =
      typeof after === "string"
        ? (JSON.parse(after) as Place)
        : after && namePlace(after);
    const { rows: images, next } = pageOf(
      this.#images()
        .filter(
          ({ key, mediaType }) =>
            mediaType !== undefined && key.upstream !== "",
        )
        .map((root) => ({ root, place: namePlace(root) })),
      named,
      limit,
    );
    return { images, next };
  }

  get(key: RepositoryKey, reference: Reference): RootRow | undefined {
    const repository = this.#tables.repository(key);
    if (repository === undefined) return undefined;
    return [
      ...this.#roots([repository]),
      ...this.#hostedManifests(repository),
    ].find(
      (root) => referenceText(root.reference) === referenceText(reference),
    );
  }

  node(digest: Digest): GraphNode | undefined {
    return this.#tables.blobs.has(digest)
      ? this.#node(digest, false)
      : undefined;
  }

  children(parent: Digest, after: IndexCursor | undefined): ChildPage {
    const manifest = this.#tables.blobs.get(parent)?.manifest;
    const start = after === undefined ? 0 : Number(after);
    const end = start + CHILDREN_PER_PAGE;
    const edges = [...(manifest?.children.values() ?? [])];
    return {
      nodes: edges
        .slice(start, end)
        .map(({ digest, isManifest }) => this.#node(digest, isManifest)),
      next: edges.length > end ? (String(end) as IndexCursor) : undefined,
    };
  }

  findDescriptor(key: RepositoryKey, digest: Digest): Descriptor | undefined {
    const links = this.#tables.repository(key)?.links;
    for (const parent of this.#tables.parentsOf(digest)) {
      const edge = parent.manifest?.children.get(digest);
      if (edge !== undefined && links?.has(parent.digest) === true) {
        return {
          digest,
          sizeBytes: edge.sizeBytes,
          mediaType: edge.mediaType,
        };
      }
    }
    return undefined;
  }

  isComplete(key: RepositoryKey, root: Digest, scope: BlobScope): boolean {
    const repository = this.#tables.repository(key);
    const isLinkedManifest = (digest: Digest): boolean =>
      repository?.links.has(digest) === true &&
      this.#tables.blobs.get(digest)?.manifest !== undefined;
    if (repository === undefined || !isLinkedManifest(root)) return false;
    const seen = new Set([root]);
    let level = [root];
    for (let depth = 0; depth <= MAX_DEPTH; depth++) {
      const next: Digest[] = [];
      for (const digest of level) {
        const edges = [
          ...(this.#tables.blobs.get(digest)?.manifest?.children.values() ??
            []),
        ];
        const manifests = edges.filter(({ isManifest }) => isManifest);
        if (manifests.length === 0) {
          const isAvailable = edges.every(
            (edge) =>
              edge.isForeign || this.#isLinked(edge.digest, repository, scope),
          );
          if (isAvailable) return true;
        }
        for (const child of manifests) {
          if (seen.has(child.digest) || !isLinkedManifest(child.digest)) {
            continue;
          }
          seen.add(child.digest);
          next.push(child.digest);
        }
      }
      level = next;
    }
    return false;
  }

  /** Lists repositories with a link, in the order of their paths. */
  linkedRepositories(limit: number, last: string | undefined): RepositoryKey[] {
    return [...this.#tables.repositories.values()]
      .filter(
        ({ links, hostedManifests, isHosted, path }) =>
          (isHosted ? hostedManifests : links).size > 0 && path > (last ?? ""),
      )
      .sort((a, b) => compare([a.path], [b.path]))
      .slice(0, limit)
      .map(({ key }) => key);
  }

  #isLinked(
    digest: Digest,
    repository: StoredRepository,
    scope: BlobScope,
  ): boolean {
    if (scope === "repository") return repository.links.has(digest);
    return [...this.#tables.repositories.values()].some(
      ({ key, links }) =>
        key.upstream === repository.key.upstream && links.has(digest),
    );
  }

  #node(digest: Digest, isNamedManifest: boolean): GraphNode {
    const blob = this.#tables.blobs.get(digest);
    return {
      digest,
      sizeBytes: blob?.sizeBytes,
      isManifest: isNamedManifest || blob?.manifest !== undefined,
      holders: blob === undefined ? 0 : this.#tables.countHolders(digest),
    };
  }

  #roots(repositories: Iterable<StoredRepository>): RootRow[] {
    const rows: RootRow[] = [];
    for (const { key, links, tags, roots } of repositories) {
      const mediaTypeOf = (digest: Digest): string | undefined =>
        links.get(digest) ??
        this.#tables.blobs.get(digest)?.manifest?.mediaType;
      for (const [tag, { digest, usedAtMs, isPinned }] of tags) {
        const reference = { kind: "tag", tag } as const;
        const mediaType = mediaTypeOf(digest);
        rows.push({ key, reference, digest, mediaType, usedAtMs, isPinned });
      }
      for (const [digest, { usedAtMs, isPinned }] of roots) {
        const reference = { kind: "digest", digest } as const;
        const mediaType = mediaTypeOf(digest);
        rows.push({ key, reference, digest, mediaType, usedAtMs, isPinned });
      }
    }
    return rows;
  }

  /** Roots; of a hosted repository its tags and its untagged manifests. */
  #images(): RootRow[] {
    return [...this.#tables.repositories.values()].flatMap((repository) => {
      const roots = this.#roots([repository]);
      if (!repository.isHosted) return roots;
      return [
        ...roots.filter(({ reference }) => reference.kind === "tag"),
        ...this.#hostedManifests(repository).filter(
          ({ digest }) =>
            repository.hostedManifests.get(digest)?.untaggedAtMs !== undefined,
        ),
      ];
    });
  }

  #hostedManifests({
    key,
    links,
    roots,
    hostedManifests,
  }: StoredRepository): RootRow[] {
    return [...hostedManifests.keys()].map((digest) => {
      const blob = this.#tables.blobs.get(digest);
      return {
        key,
        reference: { kind: "digest", digest },
        digest,
        mediaType: links.get(digest) ?? blob?.manifest?.mediaType,
        usedAtMs: blob?.usedAtMs ?? 0,
        isPinned: roots.get(digest)?.isPinned === true,
      };
    });
  }

  #isHosted({ key, reference }: RootRow): boolean {
    return (
      reference.kind === "tag" &&
      this.#tables.repository(key)?.tags.get(reference.tag)?.isHosted === true
    );
  }

  #agePlace({ key, reference, digest, usedAtMs }: RootRow): Place {
    return reference.kind === "tag"
      ? [usedAtMs, 0, 0, pathOf(key), reference.tag]
      : [
          usedAtMs,
          1,
          this.#tables.blobs.get(digest)?.place ?? 0,
          pathOf(key),
          "",
        ];
  }
}

function namePlace({ key, reference }: RootName): Place {
  return [
    pathOf(key),
    reference.kind === "tag" ? 0 : 1,
    referenceText(reference),
  ];
}

function pageOf(
  all: readonly { readonly root: RootRow; readonly place: Place }[],
  after: Place | undefined,
  limit: number,
): {
  readonly rows: readonly RootRow[];
  readonly next: IndexCursor | undefined;
} {
  const following = all
    .filter(({ place }) => after === undefined || compare(place, after) > 0)
    .sort((a, b) => compare(a.place, b.place));
  const page = following.slice(0, limit);
  const last = page.at(-1);
  return {
    rows: page.map(({ root }) => root),
    next:
      last === undefined || following.length === page.length
        ? undefined
        : (JSON.stringify(last.place) as IndexCursor),
  };
}

function compare(a: Place, b: Place): number {
  for (const [i, left] of a.entries()) {
    const right = b[i];
    if (right === undefined || left > right) return 1;
    if (left < right) return -1;
  }
  return 0;
}
