import type { UpstreamConfig } from "../config/config.ts";
import type { Clock } from "../telemetry/clock.ts";
import type { RepositoryName } from "../oci/reference.ts";
import { Authorization, type SentAuthorization } from "./authorization.ts";
import { discardBody } from "./body.ts";
import { Breaker, type Permit } from "./breaker.ts";
import {
  CredentialPool,
  type CredentialState,
  type Lane,
  type PoolMember,
} from "./credential-pool.ts";
import { CredentialError, isOwnFault, type Login } from "./credentials.ts";
import { UpstreamError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import type { UpstreamObserver, UpstreamRequestKind } from "./observer.ts";
import { abortFault, severityOf } from "./faults.ts";
import { Redirects } from "./follow-redirects.ts";
import { type Identity, requestHeaders } from "./request-headers.ts";
import { dismiss, type HeldAnswer, sendWithRetry } from "./retry.ts";
import { DEFAULT_REST_MS } from "./retry-after.ts";
import { Slots } from "./slots.ts";
import { type EndpointStatus, type LastError, toLastError } from "./status.ts";
import type { TokenSource } from "./token-source.ts";

/** Manifests, tokens and lists are small, and nobody should wait for them behind blobs. */
const SMALL_SLOTS = 8;
/** No token; an old one; a scope that was not enough. */
const MAX_CHALLENGES_ANSWERED = 2;

export interface EndpointRequest {
  readonly kind: Exclude<UpstreamRequestKind, "token">;
  readonly method: "GET" | "HEAD";
  readonly repository: RepositoryName;
  /** Behind the repository, as in `manifests/latest`; or the whole URL of a further page. */
  readonly target: string | URL;
  /** `bytes=5-` */
  readonly range?: string | undefined;
  /** False: a 401 to a token that was good so far is an answer (ECR Public, HEAD of a blob). */
  readonly isTokenDoubted?: boolean;
  readonly permit: Permit;
  readonly signal: AbortSignal;
}

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
}

/**
 * One endpoint of an upstream: where its requests go, what they are authorized with, how many run
 * at a time, and whether it is worth asking.
 */
export class Endpoint {
  /** As configured. */
  readonly url: string;
  readonly origin: string;
  readonly breaker: Breaker;
  /** What went wrong last where a request for it failed. */
  lastError: LastError | undefined;
  readonly #options: EndpointOptions;
  readonly #base: URL;
  /** Between `/v2/` and the repository, with a slash behind; mostly empty. */
  readonly #prefix: string;
  readonly #blobSlots: Slots;
  readonly #smallSlots: Slots;
  readonly #redirects: Redirects;
  readonly #authorization: Authorization;
  readonly #credentials: CredentialPool;

  constructor(options: EndpointOptions) {
    const { url, config, clock, observer, tokens, foreignExchange } = options;
    this.#options = options;
    this.url = url;
    this.#base = new URL(url);
    this.origin = this.#base.origin;
    const path = this.#base.pathname.replaceAll(/^\/+|\/+$/g, "");
    this.#prefix = path === "" ? "" : `${path}/`;
    this.breaker = new Breaker(clock, (isUp) => observer.onEndpoint(url, isUp));
    this.#blobSlots = new Slots(config.concurrency, config.name);
    this.#smallSlots = new Slots(SMALL_SLOTS, config.name);
    this.#redirects = new Redirects({
      upstream: config.name,
      endpoint: this.#base,
      identity: options.identity,
      tokens,
      exchange: options.exchange,
      foreignExchange,
      // For tokens that are needed while a slot is held: of the same slots, eight could starve each other.
      slots: new Slots(SMALL_SLOTS, config.name),
    });
    this.#authorization = new Authorization({
      upstream: config.name,
      endpoint: this.#base,
      tokenRealms: config.tokenRealms,
      tokens,
      exchange: foreignExchange,
      slots: this.#smallSlots,
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
    return this.breaker.isOpen || this.#credentials.restMs("small") > 0;
  }

  /** Nobody waits for an answer or reads a body. */
  get isIdle(): boolean {
    return this.#blobSlots.isIdle && this.#smallSlots.isIdle;
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
    const { url, breaker, lastError } = this;
    const { state, retryAfterMs } = breaker;
    return { url, breaker: state, retryAfterMs, lastError };
  }

  noteError(error: UpstreamError): void {
    this.lastError = toLastError(error, this.#options.clock.nowMs());
  }

  /** It would be asked now, and is not known to be in trouble. */
  isReady(kind: UpstreamRequestKind): boolean {
    return !this.breaker.isOpen && this.#credentials.restMs(laneOf(kind)) <= 0;
  }

  /** A permit to ask, or why it should not be asked now. */
  enter(kind: UpstreamRequestKind): Permit | UpstreamError {
    const restMs = this.#credentials.restMs(laneOf(kind));
    return restMs > 0
      ? this.#throttleRefusal(restMs)
      : (this.breaker.enter() ?? this.#restRefusal());
  }

  /** Remembers what an error says of this endpoint, and nothing that is another server's. */
  settle(permit: Permit, error: UpstreamError): void {
    const severity = severityOf(error);
    if (error.origin !== this.origin || error.kind === "breaker-open") {
      permit.abandon();
    } else if (error.status === 503 && error.retryAfterMs !== undefined) {
      permit.rest(error.retryAfterMs);
    } else if (severity === undefined) {
      permit.succeed();
    } else {
      permit.fail(severity);
    }
  }

  /**
   * Asks with whatever authorization it takes, follows redirects, retries what is worth it. Where an
   * account's quota is used up or its login refused, the next one's is taken.
   *
   * @returns any status but 429, holding its slot
   */
  async send(request: EndpointRequest): Promise<HeldAnswer> {
    const lane = laneOf(request.kind);
    const tried = new Set<PoolMember>();
    let failure: UpstreamError | undefined;
    for (;;) {
      const member = this.#credentials.choose(lane, tried);
      if (member === undefined) {
        throw (
          failure ??
          this.#throttleRefusal(this.#credentials.restMs(lane) || 1_000)
        );
      }
      tried.add(member);
      try {
        return await this.#sendAs(member, request);
      } catch (error) {
        if (!(error instanceof UpstreamError) || request.signal.aborted) {
          throw error;
        }
        if (error.kind === "rate-limited") restAfter(member, lane, error);
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
      }
    }
  }

  /** With a login that is refused, once more where its source has a newer one by now. */
  async #sendAs(
    member: PoolMember,
    request: EndpointRequest,
  ): Promise<HeldAnswer> {
    const login = await this.#bounded(member.login(), request.signal);
    try {
      return await this.#sendWith(member, login, request);
    } catch (error) {
      if (!(error instanceof CredentialError) || login === undefined) {
        throw error;
      }
      const newer = await this.#bounded(
        member.newerLogin(login),
        request.signal,
      );
      if (newer === undefined) throw error;
      return this.#sendWith(member, newer, request);
    }
  }

  async #sendWith(
    member: PoolMember,
    login: Login | undefined,
    request: EndpointRequest,
  ): Promise<HeldAnswer> {
    const { config, clock } = this.#options;
    const { repository, signal } = request;
    const name = this.#prefix + repository;
    const url =
      request.target instanceof URL
        ? request.target
        : new URL(`/v2/${name}/${request.target}`, this.#base);
    let authorization = await this.#authorization.prepare(name, login, signal);
    for (let answered = 0; ; answered++) {
      const sent = authorization;
      const held = await sendWithRetry({
        upstream: config.name,
        clock,
        signal,
        send: () => this.#take(request, url, sent, member),
        // Those who wait for the slot look at the account's rest next.
        beforeRelease: (error) =>
          restAfter(member, laneOf(request.kind), error),
      });
      const { answer } = held;
      const isChallenge =
        answer.status === 401 &&
        answer.url.origin === this.origin &&
        answered < MAX_CHALLENGES_ANSWERED &&
        (sent === undefined || request.isTokenDoubted !== false);
      if (!isChallenge) return held;
      dismiss(held);
      authorization = await this.#authorization.answer(
        name,
        answer.header("www-authenticate") ?? (await this.#ping(signal)),
        sent,
        login,
        signal,
      );
    }
  }

  async #take(
    request: EndpointRequest,
    url: URL,
    authorization: SentAuthorization | undefined,
    member: PoolMember,
  ): Promise<HeldAnswer> {
    const { kind, signal, permit } = request;
    const slots = kind === "blob" ? this.#blobSlots : this.#smallSlots;
    const release = await slots.acquire(signal);
    try {
      // It may have failed for others while this one waited.
      const restMs = member.restMs(laneOf(kind));
      if (restMs > 0) throw this.#throttleRefusal(restMs);
      if (!permit.isProbe && this.breaker.isOpen) throw this.#restRefusal();
      // Whoever was not named is counted by the address: no account's budget.
      const isCounted = authorization !== undefined || member.isAnonymous;
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
        this.settle(permit, error);
      }
      release();
      throw error;
    }
  }

  /**
   * The challenge of the API's root, for a 401 that came without one (gcr.io).
   *
   * @see clients.md section 4
   */
  async #ping(signal: AbortSignal): Promise<string | undefined> {
    const { identity, exchange } = this.#options;
    const release = await this.#smallSlots.acquire(signal);
    try {
      const answer = await exchange({
        kind: "token",
        method: "GET",
        url: new URL("/v2/", this.#base),
        headers: requestHeaders(identity, {}),
        signal,
      });
      discardBody(answer.body);
      return answer.status === 401
        ? answer.header("www-authenticate")
        : undefined;
    } finally {
      release();
    }
  }

  #throttleRefusal(retryAfterMs: number): UpstreamError {
    return new UpstreamError("rate-limited", `${this.url}: throttled`, {
      upstream: this.#options.config.name,
      origin: this.origin,
      status: 429,
      retryAfterMs,
      isLocal: true,
    });
  }

  #restRefusal(): UpstreamError {
    return new UpstreamError("breaker-open", `${this.url}: rests`, {
      upstream: this.#options.config.name,
      origin: this.origin,
      retryAfterMs: Math.max(this.breaker.retryAfterMs, 1_000),
      isLocal: true,
    });
  }

  /** A helper may take its ten seconds; whoever waits may leave earlier. */
  async #bounded<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
    const place = { upstream: this.#options.config.name, origin: this.origin };
    const { promise, reject } = Promise.withResolvers<never>();
    const leave = (): void => reject(abortFault(signal, place));
    if (signal.aborted) leave();
    signal.addEventListener("abort", leave, { once: true });
    try {
      return await Promise.race([work, promise]);
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }
}

function laneOf(kind: UpstreamRequestKind): Lane {
  return kind === "blob" ? "blob" : "small";
}

function restAfter(member: PoolMember, lane: Lane, error: UpstreamError): void {
  member.rest(lane, error.retryAfterMs ?? DEFAULT_REST_MS);
}
