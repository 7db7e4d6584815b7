import { LRUCache } from "lru-cache";
import type { UnknownRegistry } from "../../mirror/upstream-routes.ts";
import { clip, type Logger } from "../../telemetry/logger.ts";
import type { Metrics } from "../../telemetry/metrics.ts";

/** A name is logged again after this. */
const LOGGED_EVERY_MS = 60 * 60_000;

/** Names of which the time is known; with all of them in use no other is logged. */
const MAX_NAMES = 100;

/**
 * Counts and logs registries that clients name and that are not among the upstreams: an engine that
 * was set up for one more registry than the mirror, or a scan. A client chooses the names, so that
 * each is logged once an hour, and a hundred of them at most.
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
      "a client named a registry that is not among the upstreams",
    );
  }
}
