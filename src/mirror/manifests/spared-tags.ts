import type { RepositoryKey, Tag } from "../../oci/reference.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { MirroredUpstream } from "../mirrored-upstream.ts";

/** Those met longest ago are asked for once more than they had to be. */
const MAX_TAGS = 10_000;

/**
 * Tags that are known to have moved and are answered stale all the same, to spare the upstream's
 * budget. Each is asked for once in its life, as a fresh one would be; when there is budget again
 * none is held back any longer.
 */
export class SparedTags {
  readonly #clock: Clock;
  /** Until when, by the monotonic clock. */
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
