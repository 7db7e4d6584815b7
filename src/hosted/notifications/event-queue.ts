import type { NotificationConfig } from "../../config/config.ts";
import type { Schedule } from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import { formatEnvelope } from "./event-record.ts";
import type { PostEvents } from "./post-events.ts";

/** The fate of an event; a closed list, because it labels a metric. */
export type NotificationOutcome =
  /** Accepted by the endpoint. */
  | "delivered"
  /** An attempt failed, and the event is sent again. */
  | "retried"
  /** The endpoint refused it several times. */
  | "rejected"
  /** There was no room to wait, the endpoint was removed, or the process ended. */
  | "dropped";

export interface EventQueueOptions {
  readonly post: PostEvents;
  readonly schedule: Schedule;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly count: (outcome: NotificationOutcome, events: number) => void;
}

/** Bounds a request's body; each record has less than 3 KiB. */
const MAX_BATCH = 100;
const FIRST_WAIT_MS = 1_000;
const MAX_WAIT_MS = 60_000;
/** Refusals after which an event is dropped and the next one is sent. */
const MAX_REFUSALS = 5;
/** Statuses that are caused by the moment, not by the event. */
const TRANSIENT_STATUSES: ReadonlySet<number> = new Set([408, 421, 425, 429]);

/**
 * The events that wait for one endpoint, sent in order. If the answer to an event is lost, the event is
 * sent again with the same `id`.
 */
export class EventQueue {
  readonly #options: EventQueueOptions;
  readonly #closing = new AbortController();
  #config: NotificationConfig;
  readonly #waiting: string[] = [];
  /** The number of events at the head of the queue that are being sent. */
  #sending = 0;
  #running: Promise<void> | undefined;
  #failures = 0;
  #refusals = 0;
  #isLast = false;
  #wake: (() => void) | undefined;

  constructor(config: NotificationConfig, options: EventQueueOptions) {
    this.#config = config;
    this.#options = options;
  }

  get config(): NotificationConfig {
    return this.#config;
  }

  /** Events that wait or are being sent. */
  get length(): number {
    return this.#waiting.length;
  }

  /** Applies a changed configuration of the same endpoint to the events that wait. */
  reconfigure(config: NotificationConfig): void {
    this.#config = config;
    this.#wake?.();
  }

  push(record: string): void {
    this.#waiting.push(record);
    this.#running ??= this.#run();
  }

  /** Drops the oldest event that is not being sent. @returns false if there is none */
  dropOldest(): boolean {
    if (this.#waiting.length <= this.#sending) return false;
    this.#waiting.splice(this.#sending, 1);
    this.#options.count("dropped", 1);
    return true;
  }

  /** Sends the events that wait until the first failure, drops the rest, and resolves. */
  async finish(): Promise<void> {
    this.#isLast = true;
    this.#wake?.();
    await this.#running;
  }

  /** Ends the attempt in progress, and drops the events that wait. */
  abort(): void {
    this.#isLast = true;
    this.#closing.abort();
    this.#wake?.();
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0) {
      const isLast = this.#isLast;
      if (await this.#sendBatch()) continue;
      if (isLast) this.#drop();
      else if (!this.#isLast) await this.#pause();
    }
    this.#running = undefined;
  }

  /** @returns whether to continue without a pause */
  async #sendBatch(): Promise<boolean> {
    if (this.#closing.signal.aborted) return false;
    const { post, count } = this.#options;
    // The endpoint may have refused one event of the batch: send the next one alone.
    const size = this.#refusals > 0 ? 1 : MAX_BATCH;
    const batch = this.#waiting.slice(0, size);
    this.#sending = batch.length;
    let status: number | undefined;
    let error: unknown;
    try {
      const body = formatEnvelope(batch);
      status = await post(this.#config, body, this.#closing.signal);
    } catch (thrown) {
      error = thrown;
    }
    this.#sending = 0;
    if (status !== undefined && status >= 200 && status < 300) {
      this.#waiting.splice(0, batch.length);
      count("delivered", batch.length);
      this.#noteDelivery();
      return true;
    }
    this.#noteFailure(status, error);
    if (isRefusal(status)) this.#refusals += 1;
    if (this.#refusals >= MAX_REFUSALS && batch.length === 1) {
      this.#waiting.shift();
      count("rejected", 1);
      // Later events are sent alone too, until one is accepted.
      this.#refusals = 1;
    } else if (!this.#isLast) {
      count("retried", batch.length);
    }
    return false;
  }

  #drop(): void {
    this.#options.count("dropped", this.#waiting.length);
    this.#waiting.length = 0;
  }

  #pause(): Promise<void> {
    const doubled = FIRST_WAIT_MS * 2 ** Math.min(this.#failures - 1, 10);
    const delayMs = Math.min(doubled, MAX_WAIT_MS) * (0.75 + Math.random() / 4);
    return new Promise((resolve) => {
      const wake = (): void => {
        cancel();
        this.#wake = undefined;
        resolve();
      };
      const cancel = this.#options.schedule(wake, delayMs);
      this.#wake = wake;
    });
  }

  #noteDelivery(): void {
    if (this.#failures > 0) {
      this.#options.log.info(
        { endpoint: originOf(this.#config), waiting: this.length },
        "the notification endpoint accepts events again",
      );
    }
    this.#failures = 0;
    this.#refusals = 0;
  }

  #noteFailure(statusCode: number | undefined, error: unknown): void {
    this.#failures += 1;
    // The message of an error may quote secret headers; its code does not.
    if (this.#failures > 1 || this.#closing.signal.aborted) return;
    this.#options.log.warn(
      {
        endpoint: originOf(this.#config),
        statusCode,
        code: codeOf(error),
        waiting: this.length,
      },
      "the notification endpoint does not accept events",
    );
  }
}

function isRefusal(status: number | undefined): boolean {
  return (
    status !== undefined && status < 500 && !TRANSIENT_STATUSES.has(status)
  );
}

/** The path of a webhook may be its secret. */
export function originOf({ url }: NotificationConfig): string {
  return new URL(url.reveal()).origin;
}

function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  return "code" in error && typeof error.code === "string"
    ? error.code
    : error.name;
}
