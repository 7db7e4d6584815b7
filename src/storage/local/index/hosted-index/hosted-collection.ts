import type { CollectionStep } from "../../../hosted-index.ts";
import type { CondemnedBlob } from "../../../root-index.ts";
import type { SqliteRoots } from "../sqlite-roots.ts";
import type { HostedStatements, LinkId } from "./hosted-statements.ts";
import type { HostedWrites } from "./hosted-writes.ts";

/** Parents of a blob that are read before the manifests of the repository are read instead. */
const FEW_PARENTS = 128;
const FEW_MANIFESTS = 1_000;

/** Drops links that nothing needs. Runs in the caller's transactions. */
export class HostedCollector {
  readonly #statements: HostedStatements;
  readonly #writes: HostedWrites;
  readonly #roots: SqliteRoots;

  constructor(
    statements: HostedStatements,
    writes: HostedWrites,
    roots: SqliteRoots,
  ) {
    this.#statements = statements;
    this.#writes = writes;
    this.#roots = roots;
  }

  /** Examines some links, and removes each from the list of links to examine. */
  step(
    claimedBeforeMs: number,
    limit: number,
    deletedBeforeMs: number = Number.MAX_SAFE_INTEGER,
  ): CollectionStep {
    const { listMarked, listExpired } = this.#statements;
    const marked = listMarked.all(deletedBeforeMs, limit);
    const expired = listExpired.all(claimedBeforeMs, limit - marked.length);
    const unique = new Map(
      [...marked, ...expired].map((link) => [
        `${link.blobId} ${link.repositoryId}`,
        link,
      ]),
    );
    let links = 0;
    for (const link of unique.values()) {
      if (this.#examine(link, claimedBeforeMs)) links++;
    }
    return { links, isEnd: marked.length + expired.length < limit };
  }

  /** Condemns and forgets blobs until nothing more would be freed. For transactions that are rolled back. */
  free(limit: number): readonly CondemnedBlob[] {
    const freed: CondemnedBlob[] = [];
    while (freed.length < limit) {
      const found = this.#roots.condemned(limit - freed.length, new Set());
      if (found.length === 0) break;
      freed.push(...found);
      this.#roots.forgetCondemned(found.map(({ digest }) => digest));
    }
    return freed;
  }

  /** @returns whether the link was dropped */
  #examine(link: LinkId, claimedBeforeMs: number): boolean {
    const { isManifest, settleLink, unmarkLink, getClaim } = this.#statements;
    if (isManifest.get(link) !== undefined || this.#isNamed(link)) {
      settleLink.run(link);
      return false;
    }
    const claimedAtMs = getClaim.get(link)?.claimedAtMs ?? -Infinity;
    if (claimedAtMs >= claimedBeforeMs) {
      // The claim keeps the link, which is examined again after it has expired.
      unmarkLink.run(link);
      return false;
    }
    this.#writes.dropUnneeded(link);
    return true;
  }

  /** Returns whether a manifest of the repository names the blob. Reads the shorter of two lists. */
  #isNamed({ blobId, repositoryId }: LinkId): boolean {
    const { eachParent, eachManifest, hasEdge, isManifest } = this.#statements;
    const isHostedParent = (id: number): boolean =>
      isManifest.get({ blobId: id, repositoryId }) !== undefined;
    const isParent = (id: number): boolean =>
      hasEdge.get(id, blobId) !== undefined;
    return (
      some(eachParent.iterate(blobId), isHostedParent, FEW_PARENTS) ??
      some(eachManifest.iterate(repositoryId), isParent, FEW_MANIFESTS) ??
      some(eachParent.iterate(blobId), isHostedParent, Infinity) ??
      false
    );
  }
}

/** Returns whether an id fulfils the condition; undefined if none of the first `limit` does and there are more. */
function some(
  rows: Iterable<{ readonly id: number }>,
  condition: (id: number) => boolean,
  limit: number,
): boolean | undefined {
  let read = 0;
  for (const { id } of rows) {
    if (read === limit) return undefined;
    read++;
    if (condition(id)) return true;
  }
  return false;
}
