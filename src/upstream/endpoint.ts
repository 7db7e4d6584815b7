import type { UpstreamConfig } from "../config/config.ts";
import type { Clock } from "../telemetry/clock.ts";
import { Authorization, type SentAuthorization } from "./auth/authorization.ts";
import { AuthorizedRequests } from "./auth/authorized-requests.ts";
import {
  CredentialPool,
  type CredentialState,
  type PoolMember,
} from "./credentials/credential-pool.ts";
import {
  CredentialError,
  isOwnFault,
  type Login,
} from "./credentials/credentials.ts";
import { EndpointHealth, type Permit } from "./endpoint-health.ts";
import type { EndpointRequest } from "./endpoint-request.ts";
import { askRoot } from "./endpoint-root.ts";
import { EndpointProbe, type ProbeSchedule } from "./endpoint-probe.ts";
import { ProbeTarget } from "./probe-target.ts";
import { UpstreamError } from "../wire/errors.ts";
import type { Exchange } from "../wire/exchange.ts";
import type { UpstreamObserver } from "../wire/observer.ts";
import { type FaultPlace, unlessAborted } from "../wire/faults.ts";
import { refused, throttled } from "./endpoint-refusals.ts";
import { Redirects } from "./follow-redirects.ts";
import type { Identity } from "../wire/request-headers.ts";
import { dismiss, type HeldAnswer, sendWithRetry } from "../wire/retry.ts";
import { DEFAULT_REST_MS } from "../wire/retry-after.ts";
import { Slots } from "../wire/slots.ts";
import { statusFault } from "../wire/status-faults.ts";
import { type EndpointStatus, type LastError, toLastError } from "./status.ts";
import type { TokenSource } from "./auth/token-source.ts";

/** Lists may be long and slow. Manifests and tokens are small, and wait for nothing. */
const LIST_SLOTS = 8;
const UNLIMITED = 0;

export interface EndpointOptions {
  readonly url: string;
  readonly config: UpstreamConfig;
  readonly identity: Identity;
  readonly clock: Clock;
  readonly observer: UpstreamObserver;
  readonly tokens: TokenSource;
  /** To the endpoint's own origin. */
  readonly exchange: Exchange;
  /** To anywhere else. */
  readonly foreignExchange: Exchange;
  /** True: nothing is dialled now. */
  readonly isClosed: () => boolean;
  /** Ends probes in the background. */
  readonly closing: AbortSignal;
  readonly probeSchedule?: ProbeSchedule | undefined;
}

/**
 * One endpoint of an upstream: where its requests go, what they are authorized with, how many run
 * at a time, and whether it is worth asking.
 */
export class Endpoint {
  /** As configured. */
  readonly url: string;
  readonly origin: string;
  readonly #health: EndpointHealth;
  readonly #probe: EndpointProbe;
  #isRetired = false;
  /** What went wrong last where a request for it failed. */
  lastError: LastError | undefined;
  readonly #options: EndpointOptions;
  readonly #base: URL;
  readonly #place: FaultPlace;
  /** Between `/v2/` and the repository, with a slash behind; mostly empty. */
  readonly #prefix: string;
  readonly #slots: Readonly<Record<EndpointRequest["kind"], Slots>>;
  readonly #probeTarget = new ProbeTarget();
  readonly #redirects: Redirects;
  readonly #authorized: AuthorizedRequests;
  readonly #credentials: CredentialPool;

  constructor(options: EndpointOptions) {
    const { url, config, clock, observer, tokens, foreignExchange } = options;
    this.#options = options;
    this.url = url;
    this.#base = new URL(url);
    this.origin = this.#base.origin;
    this.#place = { upstream: config.name, origin: this.origin };
    const path = this.#base.pathname.replaceAll(/^\/+|\/+$/g, "");
    this.#prefix = path === "" ? "" : `${path}/`;
    this.#health = new EndpointHealth({
      origin: this.origin,
      clock,
      onChange: (isUp) => {
        // Its successor after a reload has the same name.
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
      ask: (permit, signal) => this.#askLittle(permit, signal),
    });
    const lists = new Slots(LIST_SLOTS, config.name);
    this.#slots = {
      blob: new Slots(config.concurrency, config.name),
      manifest: new Slots(UNLIMITED, config.name),
      tags: lists,
      referrers: lists,
    };
    const tokenSlots = new Slots(UNLIMITED, config.name);
    this.#redirects = new Redirects({
      upstream: config.name,
      endpoint: this.#base,
      identity: options.identity,
      tokens,
      exchange: options.exchange,
      foreignExchange,
      slots: tokenSlots,
    });
    this.#authorized = new AuthorizedRequests({
      endpoint: this.#base,
      identity: options.identity,
      exchange: options.exchange,
      authorization: new Authorization({
        upstream: config.name,
        endpoint: this.#base,
        tokenRealms: config.tokenRealms,
        tokens,
        exchange: foreignExchange,
        slots: tokenSlots,
        clock,
      }),
    });
    this.#credentials = new CredentialPool({
      upstream: config.name,
      endpoint: this.#base,
      credentials: config.credentials,
      clock,
    });
  }

  /** The breaker is open, or manifests are throttled. */
  get isDown(): boolean {
    return this.#health.isOpen || this.#credentials.restMs("manifest") > 0;
  }

  /** No request is authorized, though the endpoint itself may be up. */
  get isUnauthorized(): boolean {
    return this.#authorized.isUnauthorized;
  }

  /** Nobody waits for an answer or reads a body. */
  get isIdle(): boolean {
    return Object.values(this.#slots).every(({ isIdle }) => isIdle);
  }

  /** What is left of every account's budget is kept for manifests that nobody has cached. */
  get isBudgetSpared(): boolean {
    return this.#credentials.isSpared;
  }

  /** Less than half is left of every account's budget. */
  get isBudgetHalfUsed(): boolean {
    return this.#credentials.isHalfUsed;
  }

  /** The accounts that it is asked with, `anonymous` where there are none. */
  get credentials(): readonly CredentialState[] {
    return this.#credentials.states;
  }

  get status(): EndpointStatus {
    const { url, lastError } = this;
    const { state, retryAfterMs } = this.#health;
    return { url, breaker: state, retryAfterMs, lastError };
  }

  noteError(error: UpstreamError): void {
    this.lastError = toLastError(error, this.#options.clock.nowMs());
  }

  /** It would be asked now, and is not known to be in trouble. */
  isReady(kind: EndpointRequest["kind"]): boolean {
    return !this.#health.isOpenFor(kind) && this.#credentials.restMs(kind) <= 0;
  }

  /**
   * A permit to ask, or why it should not be asked now.
   *
   * @param resource the blob, list or manifest
   */
  enter(
    kind: EndpointRequest["kind"],
    resource: string,
    isHead?: boolean,
  ): Permit | UpstreamError {
    const restMs = this.#credentials.restMs(kind);
    if (restMs > 0) return throttled(this.#place, restMs);
    const permit = this.#health.enter(kind, resource, isHead);
    return "isProbe" in permit ? permit : refused(this.#place, permit);
  }

  /** A client asks for something of its upstream, of this endpoint or of another one. */
  noteUse(): void {
    this.#probe.noteUse();
  }

  /** Neither probes in the background nor reports to the observer any more. */
  retire(): void {
    this.#isRetired = true;
    this.#probe.stop();
  }

  /**
   * Asks with whatever authorization it takes, follows redirects, retries what is worth it. Where an
   * account's quota is used up or its login refused, the next one's is taken.
   *
   * @returns any status but 429, holding its slot
   */
  async send(request: EndpointRequest): Promise<HeldAnswer> {
    const lane = request.kind;
    const tried = new Set<PoolMember>();
    let failure: UpstreamError | undefined;
    for (;;) {
      const member = this.#credentials.choose(lane, tried);
      if (member === undefined) {
        throw (
          failure ??
          throttled(this.#place, this.#credentials.restMs(lane) || 1_000)
        );
      }
      tried.add(member);
      const isPull = lane === "manifest" && request.method === "GET";
      const endPull = isPull ? member.beginPull() : undefined;
      try {
        return await this.#sendAs(member, request, tried);
      } catch (error) {
        if (!(error instanceof UpstreamError) || request.signal.aborted) {
          throw error;
        }
        if (error instanceof CredentialError) {
          this.#authorized.noteFailure(error);
        }
        if (error.kind === "rate-limited") restAfter(member, request, error);
        else if (!(error instanceof CredentialError)) throw error;
        else if (!error.isLocal) member.refuse();
        if (failure?.kind !== "rate-limited") failure = error;
        if (isOwnFault(error)) {
          this.#options.observer.onCredentialFault(member.name, error.message);
        } else if (!member.isAnonymous) {
          this.#options.observer.onFault(
            error.kind,
            `${error.message} (credential ${member.name})`,
          );
        }
      } finally {
        endPull?.();
      }
    }
  }

  /** With a login that is refused, once more where its source has a newer one by now. */
  async #sendAs(
    member: PoolMember,
    request: EndpointRequest,
    tried: ReadonlySet<PoolMember>,
  ): Promise<HeldAnswer> {
    const login = await unlessAborted(
      member.login(),
      request.signal,
      this.#place,
    );
    try {
      return await this.#sendWith(member, login, request, tried);
    } catch (error) {
      if (!(error instanceof CredentialError) || login === undefined) {
        throw error;
      }
      const newer = await unlessAborted(
        member.newerLogin(login),
        request.signal,
        this.#place,
      );
      if (newer === undefined) throw error;
      return this.#sendWith(member, newer, request, tried);
    }
  }

  async #sendWith(
    member: PoolMember,
    login: Login | undefined,
    request: EndpointRequest,
    tried: ReadonlySet<PoolMember>,
  ): Promise<HeldAnswer> {
    const { config, clock } = this.#options;
    const { kind, repository, signal } = request;
    const name = this.#prefix + repository;
    const url =
      request.target instanceof URL
        ? request.target
        : new URL(`/v2/${name}/${request.target}`, this.#base);
    return this.#authorized.send({
      name,
      login,
      signal,
      isTokenDoubted: request.isTokenDoubted !== false,
      permit: request.permit,
      send: async (sent) => {
        const held = await sendWithRetry({
          upstream: config.name,
          clock,
          signal,
          send: () => this.#take(request, url, sent, member),
          // Requests that wait for the slot look at the account's and the resource's rest next.
          beforeRelease: (error) => {
            restAfter(member, request, error);
            if (this.#credentials.choose(kind, tried) === undefined) {
              request.permit.fail(error, kind !== "manifest");
            }
          },
        });
        member.noteAnswer(kind);
        if (kind === "manifest" && request.permit.resource !== undefined) {
          this.#probeTarget.note(request, held.answer.status);
        }
        return held;
      },
    });
  }

  async #take(
    request: EndpointRequest,
    url: URL,
    authorization: SentAuthorization | undefined,
    member: PoolMember,
  ): Promise<HeldAnswer> {
    const { kind, signal, permit } = request;
    const release = await this.#slots[kind].acquire(signal);
    try {
      // It may have failed for others while this one waited.
      const restMs = member.restMs(kind);
      if (restMs > 0) throw throttled(this.#place, restMs);
      const { refusal } = permit;
      if (refusal !== undefined) throw refused(this.#place, refusal);
      // Whoever was not named is counted by the address: no account's budget.
      const isCounted =
        authorization?.value !== undefined || member.isAnonymous;
      const answer = await this.#redirects.follow(
        { ...request, url, authorization: authorization?.value },
        (own) => {
          if (isCounted) member.observe(own.header);
        },
      );
      return { answer, release };
    } catch (error) {
      // Before the slot is free: those who wait for it look at the breaker next.
      if (
        error instanceof UpstreamError &&
        error.kind !== "rate-limited" &&
        !signal.aborted
      ) {
        permit.fail(error);
      }
      release();
      throw error;
    }
  }

  async #askLittle(permit: Permit, signal: AbortSignal): Promise<void> {
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
      isThrottled: this.#credentials.restMs("manifest") > 0,
    });
    const fault = statusFault(answer, config.name, clock);
    if (fault !== undefined) throw fault;
  }
}

function restAfter(
  member: PoolMember,
  { kind, permit }: EndpointRequest,
  error: UpstreamError,
): void {
  const restMs = error.retryAfterMs ?? DEFAULT_REST_MS;
  member.throttle(kind, permit.resource ?? "", restMs);
}
