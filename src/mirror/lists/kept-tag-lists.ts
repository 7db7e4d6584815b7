import { promisify } from "node:util";
import { deflateRaw, inflateRaw } from "node:zlib";
import type { StoredTagLists } from "../../storage/list-index.ts";
import type { RepositoryKey, Tag } from "../../oci/reference.ts";
import type { Clock } from "../../telemetry/clock.ts";

/** An upstream's list is never longer. */
const MAX_LIST_BYTES = 16 * 1024 * 1024;
/** No tag holds one. */
const SEPARATOR = "\n";

const compress = promisify(deflateRaw);
const decompress = promisify(inflateRaw);

/** Lists of tags that outlive the process, compressed in the index. Methods never reject. */
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

  /** @returns undefined if none is kept; an age below 0 means that the clock was set back */
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
        // They were tags when they were written.
        tags: tags as Tag[],
        ageMs: this.#clock.nowMs() - row.fetchedAtMs,
      };
    } catch {
      return undefined;
    }
  }

  /** Keeps a whole list that was fetched now, if anything of the repository is cached. */
  async write(key: RepositoryKey, tags: readonly Tag[]): Promise<void> {
    const fetchedAtMs = this.#clock.nowMs();
    try {
      const body = await compress(tags.join(SEPARATOR));
      await this.#index.putTagList(key, { body, fetchedAtMs });
    } catch {
      // The list in memory has to do.
    }
  }

  async drop(key: RepositoryKey): Promise<void> {
    await this.#index.dropTagList(key).catch(() => undefined);
  }
}
