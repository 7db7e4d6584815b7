import { LRUCache } from "lru-cache";
import type { MetadataIndex, RepositoryKey } from "../cache/metadata-index.ts";
import type { Tag } from "../oci/reference.ts";
import { type CacheStatus, cacheStatus } from "../telemetry/cache-status.ts";
import type { Clock } from "../telemetry/clock.ts";
import { UpstreamError } from "../upstream/errors.ts";
import {
  judgeUpstreamFailure,
  offlineRefusal,
  staleStatus,
} from "./answers.ts";
import {
  ANSWER_DEADLINE_MS,
  type MirroredUpstream,
} from "./mirrored-upstream.ts";
import { cutPage, type Page, type PageRequest } from "./pages.ts";
import { SingleFlight } from "./single-flight.ts";

/** Memory for the lists of all repositories together. */
const MAX_LISTS_BYTES = 16 * 1024 * 1024;

/** More cached tags of one repository than anybody keeps; a bound for the query. */
const MAX_CACHED_TAGS = 100_000;

export interface TagsAnswer {
  readonly page: Page<string>;
  readonly status: CacheStatus;
  readonly isStale: boolean;
}

interface TagList {
  readonly tags: readonly string[];
  readonly isWhole: boolean;
  readonly fetchedAtMs: number;
}

/** The tags of a repository: the upstream's list, or those in the cache while it is down. */
export class TagLists {
  readonly #index: MetadataIndex;
  readonly #clock: Clock;
  readonly #isOffline: boolean;
  readonly #fetches = new SingleFlight<TagList>();
  readonly #lists = new LRUCache<string, TagList>({
    maxSize: MAX_LISTS_BYTES,
    sizeCalculation: (list) =>
      list.tags.reduce((bytes, tag) => bytes + tag.length + 16, 64),
  });

  constructor(options: {
    index: MetadataIndex;
    clock: Clock;
    isOffline: boolean;
  }) {
    this.#index = options.index;
    this.#clock = options.clock;
    this.#isOffline = options.isOffline;
  }

  /** @throws Refusal, UpstreamError */
  async list(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    request: PageRequest,
  ): Promise<TagsAnswer> {
    const name = `${key.upstream} ${key.repository}`;
    const known = this.#lists.get(name);
    const ageMs =
      known === undefined
        ? Infinity
        : this.#clock.monotonicMs() - known.fetchedAtMs;
    if (known !== undefined && ageMs < upstream.freshness.tagTtlMs) {
      return {
        page: cutPage(known.tags, request, known.isWhole),
        status: cacheStatus.hit(upstream.freshness.tagTtlMs - ageMs),
        isStale: false,
      };
    }
    if (this.#isOffline) {
      return this.#cached(key, request, cacheStatus.staleHit());
    }
    try {
      const fetched = await this.#fetches.run(name, () =>
        this.#fetch(upstream, key, name),
      );
      return {
        page: cutPage(fetched.tags, request, fetched.isWhole),
        status: cacheStatus.stored(200),
        isStale: false,
      };
    } catch (error) {
      if (!(error instanceof UpstreamError)) throw error;
      const verdict = judgeUpstreamFailure(error, {
        wanted: "list",
        hasCredentials: upstream.client.hasCredentials,
      });
      if (verdict.stale === "never") throw error;
      return this.#cached(key, request, staleStatus(error), error);
    }
  }

  async #fetch(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    name: string,
  ): Promise<TagList> {
    const { tags, isWhole } = await upstream.client.listTags(
      key.repository,
      AbortSignal.timeout(ANSWER_DEADLINE_MS),
    );
    const list: TagList = {
      tags: [...new Set(tags)].sort(),
      isWhole,
      fetchedAtMs: this.#clock.monotonicMs(),
    };
    this.#lists.set(name, list);
    return list;
  }

  /** @throws `otherwise`, or a Refusal, where the cache has no tag of the repository */
  async #cached(
    key: RepositoryKey,
    request: PageRequest,
    status: CacheStatus,
    otherwise?: unknown,
  ): Promise<TagsAnswer> {
    const tags: readonly Tag[] = await this.#index
      .listTags(key, MAX_CACHED_TAGS, undefined)
      .catch(() => []);
    if (tags.length === 0) throw otherwise ?? offlineRefusal("list");
    return { page: cutPage(tags, request), status, isStale: true };
  }
}
