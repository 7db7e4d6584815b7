import { setTimeout as delay } from "node:timers/promises";
import type { HostedConfig } from "../config/config.ts";
import type { RepositoryName, Tag } from "../oci/reference.ts";
import { Pace } from "../retention/victim-search.ts";
import type { UploadId } from "../storage/blob-store.ts";
import type {
  HostedManifests,
  HostedUploads,
} from "../storage/hosted-index.ts";
import type { TagIndex } from "../storage/tag-index.ts";
import type { Clock } from "../telemetry/clock.ts";

/** A hosted registry, as the operator API reports it. */
export interface HostedSummary {
  readonly name: string;
  /** Whether names without a registry are hosted here. */
  readonly default: boolean;
  readonly repositories: number;
  readonly tags: number;
  /** Bytes of the distinct digests. */
  readonly bytes: number;
  /** Null: unlimited. */
  readonly quotaBytes: number | null;
  /** Open uploads. */
  readonly uploads: number;
  readonly uploadBytes: number;
}

interface Counts {
  readonly repositories: number;
  readonly tags: number;
  readonly countedAtMs: number;
}

export interface HostedSummariesParts {
  readonly index: Pick<
    HostedManifests,
    "listHostedRegistries" | "listHostedRepositories"
  > &
    Pick<HostedUploads, "listUploads"> &
    Pick<TagIndex, "listTags">;
  readonly registries: () => readonly HostedConfig[];
  readonly reservedBytes: (registry: string) => number;
  readonly clock: Clock;
  /** Default {@link PATIENCE_MS}. */
  readonly patienceMs?: number;
}

const ROWS_PER_QUERY = 256;
/** Counting more rows than these takes too long for every request; the result is kept for a time. */
const MAX_COUNTED_OFTEN = 5_000;
const KEPT_MS = 60_000;
/** A command gives up after five seconds; an index that is being restored answers later. */
const PATIENCE_MS = 1_000;

/** Counts repositories, tags, bytes and uploads of hosted registries. Every operator's command reads the status first. */
export class HostedSummaries {
  readonly #parts: HostedSummariesParts;
  readonly #counts = new Map<string, Counts>();
  readonly #pace = new Pace();
  #last: readonly HostedSummary[] = [];
  #counting: Promise<void> | undefined;

  constructor(parts: HostedSummariesParts) {
    this.#parts = parts;
  }

  /**
   * Lists the configured registries in their order, then others that still have content. Returns the
   * last list if the index does not answer in time: none if it has not answered yet.
   */
  async list(): Promise<readonly HostedSummary[]> {
    this.#counting ??= this.#read()
      .then((summaries) => {
        this.#last = summaries;
      })
      // The status reports the rest.
      .catch(() => undefined)
      .finally(() => {
        this.#counting = undefined;
      });
    const end = new AbortController();
    const { patienceMs = PATIENCE_MS } = this.#parts;
    await Promise.race([
      this.#counting,
      delay(patienceMs, undefined, { signal: end.signal, ref: false }).catch(
        () => undefined,
      ),
    ]);
    end.abort();
    return this.#last;
  }

  async #read(): Promise<readonly HostedSummary[]> {
    const { index, registries, reservedBytes } = this.#parts;
    const stored = await index.listHostedRegistries();
    const bytes = new Map(stored.map((one) => [one.registry, one.bytes]));
    const configs = new Map(
      registries().map((config) => [config.name, config]),
    );
    const uploads = await this.#countUploads();
    const names = new Set([...configs.keys(), ...bytes.keys()]);
    for (const name of this.#counts.keys()) {
      if (!names.has(name)) this.#counts.delete(name);
    }
    const summaries: HostedSummary[] = [];
    for (const name of names) {
      const config = configs.get(name);
      const quotaBytes = config?.quotaBytes ?? Infinity;
      const { repositories, tags } = await this.#count(name);
      summaries.push({
        name,
        default: config?.isDefault ?? false,
        repositories,
        tags,
        bytes: bytes.get(name) ?? 0,
        quotaBytes: Number.isFinite(quotaBytes) ? quotaBytes : null,
        uploads: uploads.get(name) ?? 0,
        uploadBytes: reservedBytes(name),
      });
    }
    return summaries;
  }

  async #countUploads(): Promise<ReadonlyMap<string, number>> {
    const counts = new Map<string, number>();
    let last: UploadId | undefined;
    for (;;) {
      const page = await this.#parts.index.listUploads(ROWS_PER_QUERY, last);
      for (const { key } of page) {
        counts.set(key.upstream, (counts.get(key.upstream) ?? 0) + 1);
      }
      if (page.length < ROWS_PER_QUERY) return counts;
      last = page.at(-1)?.id;
    }
  }

  async #count(registry: string): Promise<Counts> {
    const { clock } = this.#parts;
    const known = this.#counts.get(registry);
    if (
      known !== undefined &&
      known.repositories + known.tags > MAX_COUNTED_OFTEN &&
      clock.nowMs() - known.countedAtMs < KEPT_MS
    ) {
      return known;
    }
    let [repositories, tags] = [0, 0];
    let last: RepositoryName | undefined;
    do {
      const page = await this.#parts.index.listHostedRepositories(
        registry,
        ROWS_PER_QUERY,
        last,
      );
      for (const name of page) tags += await this.#countTags(registry, name);
      repositories += page.length;
      last = page.length < ROWS_PER_QUERY ? undefined : page.at(-1);
    } while (last !== undefined);
    const counts = { repositories, tags, countedAtMs: clock.nowMs() };
    this.#counts.set(registry, counts);
    return counts;
  }

  async #countTags(
    upstream: string,
    repository: RepositoryName,
  ): Promise<number> {
    const key = { upstream, repository };
    let count = 0;
    let last: Tag | undefined;
    do {
      const page = await this.#parts.index.listTags(key, ROWS_PER_QUERY, last);
      count += page.length;
      last = page.length < ROWS_PER_QUERY ? undefined : page.at(-1);
      await this.#pace.step();
    } while (last !== undefined);
    return count;
  }
}
