import type { Schedule } from "../telemetry/clock.ts";
import type { UpstreamClient } from "../upstream/client.ts";
import type { Member } from "./template-upstreams.ts";

/**
 * Interval at which a retired client is checked. Two checks in a row must find it idle: a download
 * that broke waits some seconds before it resumes.
 */
const CHECK_AFTER_MS = 30_000;

/** Limit on clients that names chosen by requests can leave running. */
const MAX_RETIRED = 1_000;

/** Clients of upstreams that are no longer configured: each is closed once it is idle. */
export class RetiredUpstreams {
  readonly #schedule: Schedule;
  /** Each client with the function that cancels its next check. */
  readonly #checks = new Map<UpstreamClient, () => void>();

  constructor(schedule: Schedule) {
    this.#schedule = schedule;
  }

  get isFull(): boolean {
    return this.#checks.size >= MAX_RETIRED;
  }

  /** Running requests finish; the client is closed after them. */
  add({ mirrored: { client } }: Member): void {
    client.retire();
    this.#checkLater(client, false);
  }

  /** Stops the checks; the caller closes the clients. */
  takeAll(): readonly UpstreamClient[] {
    for (const cancel of this.#checks.values()) cancel();
    const clients = [...this.#checks.keys()];
    this.#checks.clear();
    return clients;
  }

  #checkLater(client: UpstreamClient, wasIdle: boolean): void {
    const cancel = this.#schedule(() => {
      const isIdle = client.isIdle();
      if (!isIdle || !wasIdle) {
        this.#checkLater(client, isIdle);
        return;
      }
      this.#checks.delete(client);
      void client.close().catch(() => {});
    }, CHECK_AFTER_MS);
    this.#checks.set(client, cancel);
  }
}
