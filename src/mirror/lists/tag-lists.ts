import { LRUCache } from "lru-cache";
import type { StoredTagLists } from "../../storage/list-index.ts";
import type { TagIndex } from "../../storage/tag-index.ts";
import { parseTag, type RepositoryKey, type Tag } from "../../oci/reference.ts";
import { type CacheStatus, cacheStatus } from "../../telemetry/cache-status.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { ANSWER_DEADLINE_MS, withDeadline } from "../../wire/deadline.ts";
import { withinDeadline } from "../answer-deadline.ts";
import type { UpstreamTags } from "../../upstream/client.ts";
import { isNotFound } from "../manifests/manifest-answers.ts";
import { KeptTagLists } from "./kept-tag-lists.ts";
import type { ListRevalidation } from "./list-revalidation.ts";
import { type MirroredUpstream } from "../mirrored-upstream.ts";
import { cutPage, type Page, type PageRequest } from "./pages.ts";

type TagListIndex = Pick<TagIndex, "listTags"> & StoredTagLists;

/** Memory for the lists of all repositories together; the longest list read from an upstream fits. */
const MAX_LISTS_BYTES = 32 * 1024 * 1024;

/** More cached tags than one repository has; a bound for the query. */
const MAX_CACHED_TAGS = 100_000;

/** Identifies the list among the negative answers; no tag contains a slash. */
const TAGS_LIST = "tags/list";

export interface TagsAnswer {
  readonly page: Page<string>;
  readonly status: CacheStatus;
  /** Time since the list was fetched; undefined if it was fetched for this answer, or never completely. */
  readonly ageMs: number | undefined;
  readonly isStale: boolean;
}

export interface TagList {
  /** In ASCII order. */
  readonly tags: readonly Tag[];
  /** False if a bound cut the list; the rest is a separate part. */
  readonly isWhole: boolean;
}

interface TagsPart extends Omit<TagsAnswer, "page"> {
  readonly list: TagList;
}

interface KnownTagList extends TagList {
  readonly fetchedAtMs: number;
}

interface TagListsParts {
  readonly index: TagListIndex;
  readonly clock: Clock;
  readonly revalidation: ListRevalidation<TagList>;
}

/**
 * Answers requests for the tags of a repository with the upstream's list. While the upstream is down,
 * with the last known list or, if there is none, the tags in the cache. A complete list is stored.
 */
export class TagLists {
  readonly #parts: TagListsParts;
  readonly #kept: KeptTagLists;
  readonly #lists = new LRUCache<string, KnownTagList>({
    maxSize: MAX_LISTS_BYTES,
    sizeCalculation: (list) =>
      list.tags.reduce((bytes, tag) => bytes + tag.length + 16, 64),
  });

  constructor(parts: TagListsParts) {
    this.#parts = parts;
    this.#kept = new KeptTagLists(parts);
  }

  /** @throws Refusal, UpstreamError */
  list(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    request: PageRequest,
  ): Promise<TagsAnswer> {
    // It may need two lists, and each of them has its own deadline.
    return withinDeadline(
      this.#page(upstream, key, request),
      upstream.name,
      () => {},
    );
  }

  /**
   * Fetches a list again that is remembered, even if it is fresh.
   *
   * @throws Refusal, UpstreamError
   */
  async refresh(upstream: MirroredUpstream, key: RepositoryKey): Promise<void> {
    const list = { key, reference: TAGS_LIST };
    const start = nameOf(key, undefined);
    await this.#recall(upstream, key);
    if (!this.#lists.has(start)) {
      this.#parts.revalidation.forget(list);
      return;
    }
    await this.#parts.revalidation.refresh({
      ...list,
      upstream,
      fetch: () => this.#fetch(upstream, key, undefined),
    });
    for (const name of this.#lists.keys()) {
      // Parts that follow the cut of the old list.
      if (name !== start && name.startsWith(start)) this.#lists.delete(name);
    }
  }

  async #page(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    request: PageRequest,
  ): Promise<TagsAnswer> {
    const start = await this.#part(upstream, key, undefined, request);
    const last = parseTag(request.last ?? "");
    const { list, ...state } =
      last === undefined
        ? start
        : await this.#partWith(upstream, key, start, last, request);
    return { page: cutPage(list.tags, request, list.isWhole), ...state };
  }

  /** Returns the part that contains the tags after `last`. */
  async #partWith(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    start: TagsPart,
    last: Tag,
    request: PageRequest,
  ): Promise<TagsPart> {
    for (let part = start; ;) {
      const { tags, isWhole } = part.list;
      const end = tags.at(-1);
      if (isWhole || end === undefined || last < end) return part;
      const next = start.isStale
        ? this.#stale(key, end, start.status)
        : this.#fresh(upstream, key, end);
      if (next === undefined) return this.#part(upstream, key, last, request);
      part = next;
    }
  }

  /** @param after the tag after which the part starts; undefined: at the start of the list */
  async #part(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    after: Tag | undefined,
    request: PageRequest,
  ): Promise<TagsPart> {
    if (after === undefined) await this.#recall(upstream, key);
    const known = this.#fresh(upstream, key, after);
    if (known !== undefined) return known;
    const last = this.#lists.get(nameOf(key, after));
    const answered = await this.#parts.revalidation.get({
      upstream,
      key,
      reference: TAGS_LIST,
      part: after ?? "",
      fetch: () => this.#fetch(upstream, key, after),
      isKnown: last !== undefined,
      stale: last ?? (await this.#readCached(key, request)),
    });
    const isLast = last !== undefined && answered.list === last;
    return { ...answered, ageMs: isLast ? this.#ageMs(last) : undefined };
  }

  #ageMs({ fetchedAtMs }: KnownTagList): number {
    return this.#parts.clock.monotonicMs() - fetchedAtMs;
  }

  /** Returns a part of a list whose start is stale. */
  #stale(
    key: RepositoryKey,
    after: Tag,
    status: CacheStatus,
  ): TagsPart | undefined {
    const list = this.#lists.get(nameOf(key, after));
    return list && { list, status, ageMs: this.#ageMs(list), isStale: true };
  }

  /** Returns a part that is fresh. */
  #fresh(
    { freshness }: MirroredUpstream,
    key: RepositoryKey,
    after: Tag | undefined,
  ): TagsPart | undefined {
    const list = this.#lists.get(nameOf(key, after));
    if (list === undefined) return undefined;
    const ageMs = this.#ageMs(list);
    const ttlMs = freshness.tagTtlMs - ageMs;
    return ttlMs > 0
      ? { list, status: cacheStatus.hit(ttlMs), ageMs, isStale: false }
      : undefined;
  }

  async #fetch(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    after: Tag | undefined,
  ): Promise<TagList> {
    const { tags, isWhole } = await this.#request(upstream, key, after);
    const list = {
      tags: [...new Set(tags)]
        // An upstream that ignores `last` sends the start of the list again.
        .filter((tag) => after === undefined || tag > after)
        .sort(),
      isWhole,
    };
    const fetchedAtMs = this.#parts.clock.monotonicMs();
    this.#lists.set(nameOf(key, after), { ...list, fetchedAtMs });
    if (after === undefined) {
      await (list.isWhole
        ? this.#kept.write(key, list.tags)
        : this.#kept.drop(key));
    }
    return list;
  }

  /** Reads a stored list into memory if it is not there. */
  async #recall(
    { freshness }: MirroredUpstream,
    key: RepositoryKey,
  ): Promise<void> {
    const name = nameOf(key, undefined);
    if (this.#lists.has(name)) return;
    const kept = await this.#kept.read(key);
    if (kept === undefined || this.#lists.has(name)) return;
    // An age from a clock that was set back is unknown: the list counts as just expired.
    const ageMs = kept.ageMs < 0 ? freshness.tagTtlMs : kept.ageMs;
    this.#lists.set(name, {
      tags: kept.tags,
      isWhole: true,
      fetchedAtMs: this.#parts.clock.monotonicMs() - ageMs,
    });
  }

  /** Requests a list, and drops the known one if the upstream no longer has it. */
  async #request(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    after: Tag | undefined,
  ): Promise<UpstreamTags> {
    try {
      return await withDeadline(ANSWER_DEADLINE_MS, (signal) =>
        upstream.client.listTags(key.repository, signal, after),
      );
    } catch (error) {
      if (isNotFound(error)) {
        this.#lists.delete(nameOf(key, after));
        await this.#kept.drop(key);
      }
      throw error;
    }
  }

  /** Returns the cached tags for a page; undefined if the repository has no cached tags. */
  async #readCached(
    key: RepositoryKey,
    { n = MAX_CACHED_TAGS, last }: PageRequest,
  ): Promise<TagList | undefined> {
    // One more than the page, to know whether another page follows.
    const limit = Math.min(n, MAX_CACHED_TAGS) + 1;
    const list = (count: number, after: string | undefined) =>
      this.#parts.index.listTags(key, count, after).catch(() => []);
    const tags = await list(limit, last);
    const isEmpty =
      tags.length === 0 &&
      (last === undefined || (await list(1, undefined)).length === 0);
    return isEmpty ? undefined : { tags, isWhole: true };
  }
}

function nameOf(
  { upstream, repository }: RepositoryKey,
  after: Tag | undefined,
): string {
  return `${upstream} ${repository} ${after ?? ""}`;
}
