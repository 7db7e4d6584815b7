import { promisify } from "node:util";
import { deflateRaw, inflateRaw } from "node:zlib";
import type { StoredTagLists } from "../../storage/list-index.ts";
import type { RepositoryKey, Tag } from "../../oci/reference.ts";
import type { Clock } from "../../telemetry/clock.ts";

/** Longer than any list that is read from an upstream. */
const MAX_LIST_BYTES = 16 * 1024 * 1024;
/** No tag contains it. */
const SEPARATOR = "\n";

const compress = promisify(deflateRaw);
const decompress = promisify(inflateRaw);

/** Stores lists of tags in the index, compressed, so that they survive a restart. Methods never reject. */
export class KeptTagLists {
  readonly #index: StoredTagLists;
  readonly #clock: Clock;

  constructor(options: {
    readonly index: StoredTagLists;
    readonly clock: Clock;
  }) {
    this.#index = options.index;
    this.#clock = options.clock;
  }

  /** @returns undefined if none is stored; an age below 0 means that the clock was set back */
  async read(
    key: RepositoryKey,
  ): Promise<
    { readonly tags: readonly Tag[]; readonly ageMs: number } | undefined
  > {
    try {
      const row = await this.#index.getTagList(key);
      if (row === undefined) return undefined;
      const text = await decompress(row.body, {
        maxOutputLength: MAX_LIST_BYTES,
      });
      const tags = text.length === 0 ? [] : text.toString().split(SEPARATOR);
      return {
        // They were valid tags when they were written.
        tags: tags as Tag[],
        ageMs: this.#clock.nowMs() - row.fetchedAtMs,
      };
    } catch {
      return undefined;
    }
  }

  /** Stores a complete list that was just fetched, if content of the repository is cached. */
  async write(key: RepositoryKey, tags: readonly Tag[]): Promise<void> {
    const fetchedAtMs = this.#clock.nowMs();
    try {
      const body = await compress(tags.join(SEPARATOR));
      await this.#index.putTagList(key, { body, fetchedAtMs });
    } catch {
      // The list in memory is still used.
    }
  }

  async drop(key: RepositoryKey): Promise<void> {
    await this.#index.dropTagList(key).catch(() => undefined);
  }
}
