import type { Digest } from "../../../../oci/digest.ts";
import type {
  RepositoryKey,
  RepositoryName,
  Tag,
} from "../../../../oci/reference.ts";
import type { Referrer } from "../../../../oci/referrers.ts";
import type {
  HostedTag,
  ReferrerPage,
  UntaggedManifest,
} from "../../../hosted-index.ts";
import { bytesOf, digestFrom, pathOf } from "../index-keys.ts";
import type { HostedStatements, ReferrerColumns } from "./hosted-statements.ts";

/** Sorts before every digest. */
const NO_DIGEST = Buffer.alloc(0);

/** Reads the lists of hosted repositories. */
export class HostedLists {
  readonly #statements: HostedStatements;

  constructor(statements: HostedStatements) {
    this.#statements = statements;
  }

  blobRepositories(
    digest: Digest,
    limit: number,
    last: RepositoryKey | undefined,
  ): readonly RepositoryKey[] {
    const { getRepository, listBlobRepositories } = this.#statements;
    const after = last && getRepository.get(pathOf(last));
    // The last one was dropped meanwhile.
    if (last !== undefined && after === undefined) return [];
    return listBlobRepositories
      .all(bytesOf(digest), after?.id ?? 0, limit)
      .map(({ upstream, name }) => ({
        upstream,
        repository: name as RepositoryName,
      }));
  }

  referrers(
    key: RepositoryKey,
    subject: Digest,
    page: ReferrerPage,
  ): readonly Referrer[] {
    const { artifactTypes, limit, last } = page;
    const found: Referrer[] = [];
    if (limit <= 0) return found;
    for (const row of this.#statements.listReferrers.iterate(
      pathOf(key),
      bytesOf(subject),
      last === undefined ? NO_DIGEST : bytesOf(last),
    )) {
      const isWanted =
        artifactTypes.length === 0 ||
        (row.artifactType !== null && artifactTypes.includes(row.artifactType));
      if (isWanted && found.push(referrer(row)) === limit) break;
    }
    return found;
  }

  tags(
    key: RepositoryKey,
    limit: number,
    last: Tag | undefined,
  ): readonly HostedTag[] {
    return this.#statements.listTags
      .all(pathOf(key), last ?? "", limit)
      .map(({ tag, digest, ...times }) => ({
        tag: tag as Tag,
        digest: digestFrom(digest),
        ...times,
      }));
  }

  untagged(
    key: RepositoryKey,
    limit: number,
    last: Digest | undefined,
  ): readonly UntaggedManifest[] {
    return this.#statements.listUntagged
      .all(pathOf(key), last === undefined ? NO_DIGEST : bytesOf(last), limit)
      .map(({ digest, ...row }) => ({ digest: digestFrom(digest), ...row }));
  }

  repositories(
    registry: string,
    limit: number,
    last: RepositoryName | undefined,
  ): readonly RepositoryName[] {
    // "0" is the character after "/".
    return this.#statements.listRepositories
      .all(`${registry}/${last ?? ""}`, `${registry}0`, limit)
      .map(({ name }) => name as RepositoryName);
  }

  registries(): readonly {
    readonly registry: string;
    readonly bytes: number;
  }[] {
    return this.#statements.listRegistries.all();
  }
}

function referrer({
  digest,
  sizeBytes,
  mediaType,
  artifactType,
  annotations,
}: ReferrerColumns): Referrer {
  return {
    digest: digestFrom(digest),
    sizeBytes,
    mediaType,
    artifactType: artifactType ?? undefined,
    annotations:
      annotations === null
        ? undefined
        : (JSON.parse(annotations) as Record<string, string>),
  };
}
