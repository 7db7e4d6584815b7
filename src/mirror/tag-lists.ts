import { LRUCache } from "lru-cache";
import type { MetadataIndex, RepositoryKey } from "../cache/metadata-index.ts";
import { type CacheStatus, cacheStatus } from "../telemetry/cache-status.ts";
import type { Clock } from "../telemetry/clock.ts";
import { UpstreamError } from "../upstream/errors.ts";
import { negativeRefusal, offlineRefusal } from "./answers.ts";
import { fetchOrStale } from "./list-revalidation.ts";
import {
  ANSWER_DEADLINE_MS,
  type MirroredUpstream,
} from "./mirrored-upstream.ts";
import type { NegativeAnswers } from "./negative-answers.ts";
import { cutPage, type Page, type PageRequest } from "./pages.ts";
import { SingleFlight } from "./single-flight.ts";
import type { StaleGate } from "./stale-gate.ts";

/** Memory for the lists of all repositories together. */
const MAX_LISTS_BYTES = 16 * 1024 * 1024;

/** More cached tags of one repository than anybody keeps; a bound for the query. */
const MAX_CACHED_TAGS = 100_000;

/** What stands for the list among the negative answers; no tag has a slash. */
const TAGS_LIST = "tags/list";

export interface TagsAnswer {
  readonly page: Page<string>;
  readonly status: CacheStatus;
  /** Since the upstream was asked; undefined where it has just been, or never was for the whole. */
  readonly ageMs: number | undefined;
  readonly isStale: boolean;
}

interface TagList {
  /** In ASCII order. */
  readonly tags: readonly string[];
  readonly isWhole: boolean;
}

interface KnownTagList extends TagList {
  readonly fetchedAtMs: number;
}

/** The tags of a repository: the upstream's list, or those in the cache while it is down. */
export class TagLists {
  readonly #index: MetadataIndex;
  readonly #negative: NegativeAnswers;
  readonly #gate: StaleGate;
  readonly #clock: Clock;
  readonly #isOffline: () => boolean;
  readonly #fetches = new SingleFlight<TagList>();
  readonly #lists = new LRUCache<string, KnownTagList>({
    maxSize: MAX_LISTS_BYTES,
    sizeCalculation: (list) =>
      list.tags.reduce((bytes, tag) => bytes + tag.length + 16, 64),
  });

  constructor(options: {
    index: MetadataIndex;
    negative: NegativeAnswers;
    gate: StaleGate;
    clock: Clock;
    isOffline: () => boolean;
  }) {
    this.#index = options.index;
    this.#negative = options.negative;
    this.#gate = options.gate;
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
    const { tagTtlMs } = upstream.freshness;
    if (known !== undefined) {
      const ageMs = this.#clock.monotonicMs() - known.fetchedAtMs;
      if (ageMs < tagTtlMs) {
        return {
          page: cutPage(known.tags, request, known.isWhole),
          status: cacheStatus.hit(tagTtlMs - ageMs),
          ageMs,
          isStale: false,
        };
      }
    }
    const cached = await this.#cached(key);
    if (this.#isOffline()) {
      if (cached === undefined) throw offlineRefusal("list");
      return {
        page: cutPage(cached.tags, request),
        status: cacheStatus.staleHit(),
        ageMs: undefined,
        isStale: true,
      };
    }
    if (this.#negative.has(key, TAGS_LIST)) throw negativeRefusal("list");
    const { list, status, isStale } = await fetchOrStale({
      gate: this.#gate,
      upstream,
      fetch: () =>
        this.#fetches.run(name, () => this.#fetch(upstream, key, name)),
      isJoin: this.#fetches.has(name),
      isKnown: known !== undefined,
      stale: cached,
    });
    return {
      page: cutPage(list.tags, request, list.isWhole),
      status,
      ageMs: undefined,
      isStale,
    };
  }

  async #fetch(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    name: string,
  ): Promise<TagList> {
    try {
      const { tags, isWhole } = await upstream.client.listTags(
        key.repository,
        AbortSignal.timeout(ANSWER_DEADLINE_MS),
      );
      const list = { tags: [...new Set(tags)].sort(), isWhole };
      const fetchedAtMs = this.#clock.monotonicMs();
      this.#lists.set(name, { ...list, fetchedAtMs });
      return list;
    } catch (error) {
      if (error instanceof UpstreamError && error.kind === "not-found") {
        this.#negative.add(key, TAGS_LIST, upstream.freshness.notFoundTtlMs);
      }
      throw error;
    }
  }

  /** The tags that the cache can answer; undefined where it has none of the repository. */
  async #cached(key: RepositoryKey): Promise<TagList | undefined> {
    const tags = await this.#index
      .listTags(key, MAX_CACHED_TAGS, undefined)
      .catch(() => []);
    return tags.length === 0 ? undefined : { tags, isWhole: true };
  }
}
