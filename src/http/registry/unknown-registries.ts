import { LRUCache } from "lru-cache";
import type { UnknownRegistry } from "../../routing/routes.ts";
import { clip, type Logger } from "../../telemetry/logger.ts";
import type { Metrics } from "../../telemetry/metrics.ts";

/** A name is logged at most once in this time. */
const LOGGED_EVERY_MS = 60 * 60_000;

/** Names that are remembered; if all are in use, no other name is logged. */
const MAX_NAMES = 100;

/**
 * Counts and logs registries that clients name and that are not configured: an engine is set up for
 * a registry that the mirror does not have, or a scan. Clients choose the names, so each is logged
 * once an hour, and at most a hundred of them.
 */
export class UnknownRegistries {
  readonly #log: Logger;
  readonly #metrics: Metrics;
  readonly #logged: LRUCache<string, true>;

  constructor(log: Logger, metrics: Metrics, nowMs = () => performance.now()) {
    this.#log = log;
    this.#metrics = metrics;
    this.#logged = new LRUCache({
      max: MAX_NAMES,
      ttl: LOGGED_EVERY_MS,
      perf: { now: nowMs },
    });
  }

  note({ by, name }: UnknownRegistry): void {
    this.#metrics.unknownRegistries.inc({ by });
    const registry = clip(name);
    if (this.#logged.has(registry)) return;
    if (this.#logged.size >= MAX_NAMES) {
      this.#logged.purgeStale();
      if (this.#logged.size >= MAX_NAMES) return;
    }
    this.#logged.set(registry, true);
    this.#log.warn(
      { registry, by },
      "a client named a registry that is not among the upstreams or hosted registries",
    );
  }
}
