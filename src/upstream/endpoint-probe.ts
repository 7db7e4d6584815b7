import type { Clock } from "../telemetry/clock.ts";
import type { EndpointHealth, Permit } from "./endpoint-health.ts";
import { UpstreamError } from "../wire/errors.ts";

/** Calls back after a delay; returns the way to cancel it. */
export type ProbeSchedule = (run: () => void, delayMs: number) => () => void;

const USED_LATELY_MS = 3_600_000;
/** All of a probe: connection, tokens and headers. */
const MAX_PROBE_MS = 20_000;
/** Between two looks while a client's request is the probe, and for clocks that stand. */
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
  /** Absent: by the system's timers, which do not keep the process. */
  readonly schedule?: ProbeSchedule | undefined;
  /** True: nothing is dialled now. */
  readonly isClosed: () => boolean;
  /** Ends a probe that is on its way. */
  readonly closing: AbortSignal;
  /** Asks for little. Throws UpstreamError unless an answer came that shows it up. */
  readonly ask: (permit: Permit, signal: AbortSignal) => Promise<void>;
}

/**
 * Probes an endpoint whose breaker is open, once its pause is over, so that its recovery does not
 * wait for a client. One probe at a time, and none for an endpoint that no client asked for lately.
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

  /** A client's request asked for it. */
  noteUse(): void {
    this.#usedAtMs = this.#options.clock.monotonicMs();
    this.#arm();
  }

  /** Its breaker opened or closed. */
  onChange(): void {
    this.#arm();
  }

  /** Probes no more; one on its way ends by itself. */
  stop(): void {
    this.#isStopped = true;
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #arm(): void {
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
    const isUsed = clock.monotonicMs() - this.#usedAtMs < USED_LATELY_MS;
    // The next client's use arms it again.
    if (!isUsed || isClosed() || this.#isStopped || !health.isOpen) return;
    const permit =
      health.retryAfterMs > 0 ? undefined : health.enter("manifest", undefined);
    if (permit !== undefined && "isProbe" in permit) {
      this.#isProbing = true;
      await this.#probe(permit);
      this.#isProbing = false;
    }
    this.#arm();
  }

  async #probe(permit: Permit): Promise<void> {
    const { upstream, origin, closing, ask } = this.#options;
    const bound = AbortSignal.timeout(MAX_PROBE_MS);
    try {
      await ask(permit, AbortSignal.any([closing, bound]));
      permit.succeed();
    } catch (error) {
      if (bound.aborted) {
        const late = "a probe was not answered in time";
        permit.fail(
          new UpstreamError("timeout", `${origin}: ${late}`, {
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
