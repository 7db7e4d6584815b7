import type { UpstreamConfig } from "../config/config.ts";
import type { Clock } from "../telemetry/clock.ts";
import type { UpstreamError } from "../wire/errors.ts";
import type { Exchange } from "../wire/exchange.ts";
import type { FaultPlace } from "../wire/faults.ts";
import type { UpstreamObserver } from "../wire/observer.ts";
import type { Identity } from "../wire/request-headers.ts";
import { dismiss, type HeldAnswer } from "../wire/retry.ts";
import { statusFault } from "../wire/status-faults.ts";
import type { TokenSource } from "./auth/token-source.ts";
import type { CredentialState } from "./credentials/credential-pool.ts";
import { EndpointHealth, type Permit } from "./endpoint-health.ts";
import { EndpointProbe, type ProbeSchedule } from "./endpoint-probe.ts";
import { refused, throttled } from "./endpoint-refusals.ts";
import type { EndpointRequest } from "./endpoint-request.ts";
import { askRoot } from "./endpoint-root.ts";
import { EndpointSender } from "./endpoint-sender.ts";
import { ProbeTarget } from "./probe-target.ts";
import { type EndpointStatus, type LastError, toLastError } from "./status.ts";

export interface EndpointOptions {
  readonly url: string;
  readonly config: UpstreamConfig;
  readonly identity: Identity;
  readonly clock: Clock;
  readonly observer: UpstreamObserver;
  readonly tokens: TokenSource;
  /** Sends to the endpoint's own origin. */
  readonly exchange: Exchange;
  /** Sends to any other origin. */
  readonly foreignExchange: Exchange;
  /** True: nothing is dialled now. */
  readonly isClosed: () => boolean;
  /** Ends background probes. */
  readonly closing: AbortSignal;
  readonly probeSchedule?: ProbeSchedule | undefined;
}

/** One endpoint of an upstream: sends its requests and decides whether it is worth asking. */
export class Endpoint {
  /** As configured. */
  readonly url: string;
  readonly origin: string;
  readonly #options: EndpointOptions;
  readonly #base: URL;
  readonly #place: FaultPlace;
  readonly #sender: EndpointSender;
  readonly #health: EndpointHealth;
  readonly #probe: EndpointProbe;
  readonly #probeTarget = new ProbeTarget();
  #isRetired = false;
  #lastError: LastError | undefined;

  constructor(options: EndpointOptions) {
    const { url, config, clock, observer } = options;
    this.#options = options;
    this.url = url;
    this.#base = new URL(url);
    this.origin = this.#base.origin;
    this.#place = { upstream: config.name, origin: this.origin };
    this.#sender = new EndpointSender({
      ...options,
      endpoint: this.#base,
      onManifestAnswer: (request, status) =>
        this.#probeTarget.note(request, status),
    });
    this.#health = new EndpointHealth({
      origin: this.origin,
      clock,
      onChange: (isUp) => {
        // After a reload, the endpoint that replaces this one has the same name.
        if (!this.#isRetired) observer.onEndpoint(url, isUp);
        this.#probe.onChange();
      },
    });
    this.#probe = new EndpointProbe({
      upstream: config.name,
      origin: this.origin,
      health: this.#health,
      clock,
      schedule: options.probeSchedule,
      isClosed: options.isClosed,
      closing: options.closing,
      ask: (permit, signal) => this.#sendProbe(permit, signal),
    });
  }

  /** True if the breaker is open or manifests are throttled. */
  get isDown(): boolean {
    return this.#health.isOpen || this.#restMs("manifest") > 0;
  }

  /** True if no token or login is available, although the endpoint itself may be up. */
  get isUnauthorized(): boolean {
    return this.#sender.isUnauthorized;
  }

  /** True if no request runs and no body is being read. */
  get isIdle(): boolean {
    return this.#sender.isIdle;
  }

  /** True if the rest of every account's budget is kept for manifests that are not cached. */
  get isBudgetSpared(): boolean {
    return this.#sender.credentials.isSpared;
  }

  /** True if every account has less than half of its budget left. */
  get isBudgetHalfUsed(): boolean {
    return this.#sender.credentials.isHalfUsed;
  }

  /** The accounts that requests are sent with; `anonymous` if none is configured. */
  get credentials(): readonly CredentialState[] {
    return this.#sender.credentials.states;
  }

  get status(): EndpointStatus {
    const { state, retryAfterMs } = this.#health;
    const lastError = this.#lastError;
    return { url: this.url, breaker: state, retryAfterMs, lastError };
  }

  noteError(error: UpstreamError): void {
    this.#lastError = toLastError(error, this.#options.clock.nowMs());
  }

  /** True if a request would be sent now and no failure is known. */
  isReady(kind: EndpointRequest["kind"]): boolean {
    return !this.#health.isOpenFor(kind) && this.#restMs(kind) <= 0;
  }

  /**
   * Returns a permit to send a request, or the error that says why none is sent now.
   *
   * @param resource the blob, list or manifest
   */
  enter(
    kind: EndpointRequest["kind"],
    resource: string,
    isHead?: boolean,
  ): Permit | UpstreamError {
    const restMs = this.#restMs(kind);
    if (restMs > 0) return throttled(this.#place, restMs);
    const permit = this.#health.enter(kind, resource, isHead);
    return "isProbe" in permit ? permit : refused(this.#place, permit);
  }

  /** Notes that a client requests something of the upstream, from this endpoint or another one. */
  noteUse(): void {
    this.#probe.noteUse();
  }

  /** Stops background probes and reports to the observer. */
  retire(): void {
    this.#isRetired = true;
    this.#probe.stop();
  }

  /** Sends a request; see {@link EndpointSender.send}. */
  send(request: EndpointRequest): Promise<HeldAnswer> {
    return this.#sender.send(request);
  }

  #restMs(kind: EndpointRequest["kind"]): number {
    return this.#sender.credentials.restMs(kind);
  }

  /** @throws UpstreamError unless the answer shows that the endpoint is up */
  async #sendProbe(permit: Permit, signal: AbortSignal): Promise<void> {
    const { config, clock } = this.#options;
    const answer = await this.#probeTarget.ask({
      head: async (manifest) => {
        const held = await this.send({
          ...manifest,
          kind: "manifest",
          method: "HEAD",
          permit,
          signal,
        });
        dismiss(held);
        return held.answer;
      },
      root: () => askRoot(this.#options, this.#base, signal),
      isThrottled: this.#restMs("manifest") > 0,
    });
    const fault = statusFault(answer, config.name, clock);
    if (fault !== undefined) throw fault;
  }
}
