import { setImmediate } from "node:timers/promises";
import type { Digest } from "../../oci/digest.ts";
import { RegistryError } from "../../oci/errors.ts";
import type {
  RepositoryKey,
  RepositoryName,
  Tag,
} from "../../oci/reference.ts";
import { formatReferrers, type Referrer } from "../../oci/referrers.ts";
import type { HostedManifests } from "../../storage/hosted-index.ts";
import type { TagIndex } from "../../storage/tag-index.ts";
import type { ContentPage, PageDemand, ReferrersPage } from "./content.ts";

/** The size of a page of tags if the client requests none. */
const DEFAULT_TAGS = 10_000;
/** Tags read in one step. */
const TAGS_IN_A_STEP = 1_000;
/** Rows read in one step; the descriptors of this many referrers seldom exceed a page. */
const REFERRERS_IN_A_STEP = 100;
/** Clients reject larger manifests, and an index is one. */
const MAX_REFERRERS_BYTES = 4_194_304;

interface ContentListsParts {
  readonly index: Pick<TagIndex, "listTags"> &
    Pick<HostedManifests, "listHostedReferrers" | "listHostedRepositories">;
  /** Absent: {@link MAX_REFERRERS_BYTES}. */
  readonly maxReferrersBytes?: number;
}

/** Lists of hosted content, one page at a time. */
export class ContentLists {
  readonly #parts: ContentListsParts;

  constructor(parts: ContentListsParts) {
    this.#parts = parts;
  }

  /** @throws RegistryError NAME_UNKNOWN, IndexError */
  async tags(
    key: RepositoryKey,
    { n = DEFAULT_TAGS, last }: PageDemand,
  ): Promise<ContentPage<Tag>> {
    const tags: Tag[] = [];
    // One more than wanted, to know whether another page follows.
    for (let after = last; tags.length <= n; after = tags.at(-1)) {
      const wanted = Math.min(TAGS_IN_A_STEP, n + 1 - tags.length);
      const step = await this.#parts.index.listTags(key, wanted, after);
      tags.push(...step);
      if (step.length < wanted) break;
      // The index answers synchronously: let other requests run in between.
      await setImmediate();
    }
    if (tags.length === 0 && !(await this.#isKnown(key))) {
      throw new RegistryError("NAME_UNKNOWN");
    }
    const entries = tags.slice(0, n);
    const hasMore = n > 0 && tags.length > n;
    return { entries, nextLast: hasMore ? entries.at(-1) : undefined };
  }

  /** @throws IndexError */
  async referrers(
    key: RepositoryKey,
    subject: Digest,
    artifactTypes: readonly string[],
    last: Digest | undefined,
  ): Promise<ReferrersPage> {
    const { index, maxReferrersBytes = MAX_REFERRERS_BYTES } = this.#parts;
    const isFiltered = artifactTypes.length > 0;
    const list = formatReferrers(maxReferrersBytes);
    let after = last;
    for (;;) {
      const step: readonly Referrer[] = await index.listHostedReferrers(
        key,
        subject,
        { artifactTypes, limit: REFERRERS_IN_A_STEP, last: after },
      );
      for (const referrer of step) {
        if (!list.add(referrer)) {
          return { bytes: list.end(), isFiltered, nextLast: after };
        }
        after = referrer.digest;
      }
      if (step.length < REFERRERS_IN_A_STEP) {
        return { bytes: list.end(), isFiltered, nextLast: undefined };
      }
      await setImmediate();
    }
  }

  /** Returns whether the repository has a manifest. */
  async #isKnown({ upstream, repository }: RepositoryKey): Promise<boolean> {
    const [next] = await this.#parts.index.listHostedRepositories(
      upstream,
      1,
      justBefore(repository),
    );
    return next === repository;
  }
}

/** Returns a string that sorts before this name and after every smaller name. */
function justBefore(name: RepositoryName): RepositoryName {
  const code = name.charCodeAt(name.length - 1);
  // The tilde sorts after every character of a name.
  return `${name.slice(0, -1)}${String.fromCharCode(code - 1)}~` as RepositoryName;
}
