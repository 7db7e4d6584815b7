import type { NotificationConfig } from "../../config/config.ts";
import type { RepositoryKey } from "../../oci/reference.ts";
import {
  type Clock,
  type Schedule,
  scheduleUnref,
} from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import type { HostedEvent } from "../hosted.ts";
import { EventQueue, type NotificationOutcome } from "./event-queue.ts";
import { formatEvent, type RecordContext } from "./event-record.ts";
import { createPoster, type Poster } from "./post-events.ts";

export interface NotificationsOptions extends Pick<
  RecordContext,
  "scheme" | "source"
> {
  readonly endpoints: readonly NotificationConfig[];
  /** Returns the name by which clients pull a repository: `local/team/app`. */
  readonly nameOf: (key: RepositoryKey) => string;
  readonly clock: Clock;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly metrics: Pick<Metrics, "notifications">;
  readonly schedule?: Schedule;
  readonly poster?: Poster;
  /** Events that may wait, for all endpoints together. */
  readonly maxWaiting?: number;
}

const MAX_WAITING = 10_000;
/** The bound of a stop's wait for the endpoints. */
const STOP_WITHIN_MS = 3_000;

/**
 * Sends events to the configured endpoints. Each endpoint has a queue of its own, so that an endpoint
 * that does not answer delays no other. The number of waiting events is bounded; beyond it the longest
 * queue drops its oldest event. Events that wait when the process ends are lost.
 */
export class Notifications {
  readonly #options: NotificationsOptions;
  readonly #poster: Poster;
  readonly #queues = new Map<string, EventQueue>();
  #isFull = false;
  #isStopped = false;

  constructor(options: NotificationsOptions) {
    this.#options = options;
    this.#poster = options.poster ?? createPoster();
    this.replace(options.endpoints);
  }

  /** Queues an event for the endpoints that receive its kind. An `EventSink`: never blocks, never throws. */
  readonly sink = (event: HostedEvent): void => {
    if (this.#isStopped) return;
    let record: string | undefined;
    for (const queue of this.#queues.values()) {
      if (!queue.config.events.includes(event.action)) continue;
      record ??= formatEvent(event, {
        ...this.#options,
        nowMs: this.#options.clock.nowMs(),
      });
      if (this.#makeRoom()) queue.push(record);
      else this.#count("dropped", 1);
    }
  };

  /** Applies changed endpoints. Events that wait for an endpoint that stays are kept. */
  replace(endpoints: readonly NotificationConfig[]): void {
    if (this.#isStopped) return;
    const kept = new Set<string>();
    for (const config of endpoints) {
      const key = config.url.reveal();
      // Each of two endpoints with one URL has its own queue.
      const name = kept.has(key) ? `${key} ${kept.size}` : key;
      kept.add(name);
      const queue = this.#queues.get(name);
      if (queue === undefined) this.#queues.set(name, this.#open(config));
      else queue.reconfigure(config);
    }
    for (const [name, queue] of this.#queues) {
      if (kept.has(name)) continue;
      this.#queues.delete(name);
      queue.abort();
    }
  }

  /** Sends the events that wait, for a bounded time, and closes the connections. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    const queues = [...this.#queues.values()];
    const timer = setTimeout(() => {
      for (const queue of queues) queue.abort();
    }, STOP_WITHIN_MS);
    await Promise.all(queues.map((queue) => queue.finish()));
    clearTimeout(timer);
    await this.#poster.close();
  }

  #open(config: NotificationConfig): EventQueue {
    const { log, schedule = scheduleUnref } = this.#options;
    return new EventQueue(config, {
      post: this.#poster.post,
      schedule,
      log,
      count: (outcome, events) => this.#count(outcome, events),
    });
  }

  #count(outcome: NotificationOutcome, events: number): void {
    this.#options.metrics.notifications.inc({ outcome }, events);
  }

  /** @returns false if every waiting event is being sent */
  #makeRoom(): boolean {
    const { maxWaiting = MAX_WAITING, log } = this.#options;
    let waiting = 0;
    let longest: EventQueue | undefined;
    for (const queue of this.#queues.values()) {
      waiting += queue.length;
      if (longest === undefined || queue.length > longest.length)
        longest = queue;
    }
    if (waiting < maxWaiting) {
      this.#isFull &&= waiting > maxWaiting / 2;
      return true;
    }
    if (!this.#isFull) {
      this.#isFull = true;
      log.warn(
        { waiting, maxWaiting },
        "too many notifications wait; dropping the oldest of the longest queue",
      );
    }
    return longest?.dropOldest() === true;
  }
}
