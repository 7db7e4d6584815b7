import type { RepositoryKey, Tag } from "../../oci/reference.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { MirroredUpstream } from "../mirrored-upstream.ts";

/** The oldest are dropped, and the upstream is asked for them once more than necessary. */
const MAX_TAGS = 10_000;

/**
 * Remembers tags that have moved and are served stale to save the upstream's pull quota. The upstream
 * is asked for each once per `ttl`, as for a fresh tag; when quota is available again, all of them
 * are revalidated.
 */
export class SparedTags {
  readonly #clock: Clock;
  /** Monotonic times at which the entries end. */
  readonly #tags = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(key: RepositoryKey, tag: Tag, ttlMs: number): void {
    const name = nameOf(key, tag);
    this.#tags.delete(name);
    this.#tags.set(name, this.#clock.monotonicMs() + ttlMs);
    if (this.#tags.size <= MAX_TAGS) return;
    const [oldest] = this.#tags.keys();
    if (oldest !== undefined) this.#tags.delete(oldest);
  }

  has({ client }: MirroredUpstream, key: RepositoryKey, tag: Tag): boolean {
    if (this.#tags.size === 0) return false;
    if (!client.isBudgetSpared()) return false;
    const untilMs = this.#tags.get(nameOf(key, tag));
    return untilMs !== undefined && this.#clock.monotonicMs() < untilMs;
  }
}

function nameOf({ upstream, repository }: RepositoryKey, tag: Tag): string {
  return `${upstream} ${repository} ${tag}`;
}
