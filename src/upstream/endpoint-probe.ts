import type { Clock } from "../telemetry/clock.ts";
import type { EndpointHealth, Permit } from "./endpoint-health.ts";
import { UpstreamError } from "../wire/errors.ts";

/** Schedules a call after a delay; returns the function that cancels it. */
export type ProbeSchedule = (run: () => void, delayMs: number) => () => void;

const RECENT_USE_MS = 3_600_000;
/** Bound of a whole probe: connection, tokens and headers. */
const MAX_PROBE_MS = 20_000;
/** The shortest delay between two checks, also while a client's request is the probe. */
const MIN_DELAY_MS = 1_000;

const scheduleUnref: ProbeSchedule = (run, delayMs) => {
  const timer = setTimeout(run, delayMs).unref();
  return () => clearTimeout(timer);
};

export interface EndpointProbeOptions {
  readonly upstream: string;
  readonly origin: string;
  readonly health: EndpointHealth;
  readonly clock: Clock;
  /** Absent: timers that do not keep the process alive. */
  readonly schedule?: ProbeSchedule | undefined;
  /** True: nothing is dialled now. */
  readonly isClosed: () => boolean;
  /** Ends a running probe. */
  readonly closing: AbortSignal;
  /** Sends a small request. @throws UpstreamError unless the answer shows that the endpoint is up */
  readonly ask: (permit: Permit, signal: AbortSignal) => Promise<void>;
}

/**
 * Probes an endpoint in the background when the pause of its open breaker is over, so that recovery
 * does not wait for a client. One probe runs at a time, and none if no client used the upstream
 * within the last hour.
 */
export class EndpointProbe {
  readonly #options: EndpointProbeOptions;
  #usedAtMs = -Infinity;
  #cancel: (() => void) | undefined;
  #isProbing = false;
  #isStopped = false;

  constructor(options: EndpointProbeOptions) {
    this.#options = options;
  }

  /** Notes a request of a client. */
  noteUse(): void {
    this.#usedAtMs = this.#options.clock.monotonicMs();
    this.#schedule();
  }

  /** Notes that the breaker opened or closed. */
  onChange(): void {
    this.#schedule();
  }

  /** Starts no further probe; a running one ends by itself. */
  stop(): void {
    this.#isStopped = true;
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #schedule(): void {
    const { health, schedule = scheduleUnref } = this.#options;
    const isArmed = this.#cancel !== undefined || this.#isProbing;
    if (isArmed || this.#isStopped || !health.isOpen) return;
    this.#cancel = schedule(
      () => {
        this.#cancel = undefined;
        void this.#run();
      },
      Math.max(health.retryAfterMs, MIN_DELAY_MS),
    );
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    const { health, clock, isClosed } = this.#options;
    const isUsed = clock.monotonicMs() - this.#usedAtMs < RECENT_USE_MS;
    // The next request of a client schedules a probe again.
    if (!isUsed || isClosed() || this.#isStopped || !health.isOpen) return;
    const permit =
      health.retryAfterMs > 0 ? undefined : health.enter("manifest", undefined);
    if (permit !== undefined && "isProbe" in permit) {
      this.#isProbing = true;
      await this.#probe(permit);
      this.#isProbing = false;
    }
    this.#schedule();
  }

  async #probe(permit: Permit): Promise<void> {
    const { upstream, origin, closing, ask } = this.#options;
    const bound = AbortSignal.timeout(MAX_PROBE_MS);
    try {
      await ask(permit, AbortSignal.any([closing, bound]));
      permit.succeed();
    } catch (error) {
      if (bound.aborted) {
        permit.fail(
          new UpstreamError("timeout", `${origin}: the probe timed out`, {
            upstream,
            origin,
          }),
        );
      } else if (error instanceof UpstreamError && !closing.aborted) {
        permit.fail(error);
      }
      permit.abandon();
    }
  }
}
