import type { UpstreamConfig } from "../config/config.ts";
import type { Clock } from "../telemetry/clock.ts";
import type { RepositoryName } from "../oci/reference.ts";
import { Authorization, type SentAuthorization } from "./authorization.ts";
import { discardBody } from "./body.ts";
import { Breaker, type Permit } from "./breaker.ts";
import { parseChallenges } from "./challenge.ts";
import { UpstreamError } from "./errors.ts";
import type { Answer, Exchange } from "./exchange.ts";
import type { UpstreamObserver, UpstreamRequestKind } from "./observer.ts";
import { severityOf } from "./faults.ts";
import { isRedirect, judgeRedirect, MAX_REDIRECTS } from "./redirect.ts";
import { type Identity, requestHeaders } from "./request-headers.ts";
import { dismiss, type HeldAnswer, sendWithRetry } from "./retry.ts";
import { DEFAULT_REST_MS } from "./retry-after.ts";
import { Slots } from "./slots.ts";
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
  readonly #options: EndpointOptions;
  readonly #base: URL;
  /** Between `/v2/` and the repository, with a slash behind; mostly empty. */
  readonly #prefix: string;
  readonly #blobSlots: Slots;
  readonly #smallSlots: Slots;
  /** For tokens that are needed while a slot is held: of the same slots, eight could starve each other. */
  readonly #nestedSlots: Slots;
  readonly #authorization: Authorization;
  /** Until when a 429 asked to be left alone; quotas are for manifests, and blobs go on. */
  readonly #throttledUntilMs = { blob: 0, small: 0 };

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
    this.#nestedSlots = new Slots(SMALL_SLOTS, config.name);
    this.#authorization = new Authorization({
      upstream: config.name,
      endpoint: this.#base,
      tokenRealms: config.tokenRealms,
      credential: config.credentials[0],
      tokens,
      exchange: foreignExchange,
      slots: this.#smallSlots,
    });
  }

  /** The breaker is open, or manifests are throttled. */
  get isDown(): boolean {
    return this.breaker.isOpen || this.#throttledMs("manifest") > 0;
  }

  /** A permit to ask, or why it should not be asked now. */
  enter(kind: UpstreamRequestKind): Permit | UpstreamError {
    return (
      this.#throttleRefusal(kind) ?? this.breaker.enter() ?? this.#restRefusal()
    );
  }

  /** Remembers what an error says of this endpoint, and nothing that is another server's. */
  settle(
    permit: Permit,
    kind: UpstreamRequestKind,
    error: UpstreamError,
  ): void {
    const severity = severityOf(error);
    if (error.kind === "rate-limited") {
      const { retryAfterMs = DEFAULT_REST_MS } = error;
      this.#throttledUntilMs[kind === "blob" ? "blob" : "small"] =
        this.#options.clock.monotonicMs() + retryAfterMs;
    }
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
   * Asks with whatever authorization it takes, follows redirects, retries what is worth it.
   *
   * @returns any status but 429, holding its slot
   */
  async send(request: EndpointRequest): Promise<HeldAnswer> {
    const { config, clock } = this.#options;
    const { repository, signal } = request;
    const name = this.#prefix + repository;
    const url =
      request.target instanceof URL
        ? request.target
        : new URL(`/v2/${name}/${request.target}`, this.#base);
    let authorization = await this.#authorization.prepare(name, signal);
    for (let answered = 0; ; answered++) {
      const sent = authorization;
      const held = await sendWithRetry({
        upstream: config.name,
        clock,
        signal,
        send: () => this.#take(request, url, sent),
        beforeRelease: (error) =>
          this.settle(request.permit, request.kind, error),
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
        signal,
      );
    }
  }

  async #take(
    request: EndpointRequest,
    url: URL,
    authorization: SentAuthorization | undefined,
  ): Promise<HeldAnswer> {
    const { kind, signal, permit } = request;
    const slots = kind === "blob" ? this.#blobSlots : this.#smallSlots;
    const release = await slots.acquire(signal);
    try {
      // It may have failed for others while this one waited.
      if (!permit.isProbe) {
        const throttled = this.#throttleRefusal(kind);
        if (throttled !== undefined) throw throttled;
        if (this.breaker.isOpen) throw this.#restRefusal();
      }
      const answer = await this.#follow(request, url, authorization?.value);
      return { answer, release };
    } catch (error) {
      // Before the slot is free: those who wait for it look at the breaker next.
      if (error instanceof UpstreamError && !signal.aborted) {
        this.settle(permit, kind, error);
      }
      release();
      throw error;
    }
  }

  async #follow(
    request: EndpointRequest,
    start: URL,
    authorization: string | undefined,
  ): Promise<Answer> {
    const { identity, exchange, foreignExchange } = this.#options;
    const { kind, method, range, signal } = request;
    let url = start;
    let hasLeft = false;
    for (let hops = 0; ;) {
      // A target may point back here, at a path of its choice: it gets no credential for that.
      hasLeft ||= url.origin !== this.origin;
      const ask = (bearer: string | undefined): Promise<Answer> =>
        (url.origin === this.origin ? exchange : foreignExchange)({
          kind,
          method,
          url,
          headers: requestHeaders(identity, { range, authorization: bearer }),
          signal,
        });
      let answer = await ask(hasLeft ? undefined : authorization);
      if (hasLeft && answer.status === 401) {
        const bearer = await this.#foreignBearer(answer, signal);
        if (bearer !== undefined) {
          discardBody(answer.body);
          answer = await ask(bearer);
        }
      }
      if (!isRedirect(answer.status)) return answer;
      discardBody(answer.body);
      const verdict = judgeRedirect(url, answer.header("location"));
      if ("refusal" in verdict) throw this.#badRedirect(verdict.refusal);
      hops += 1;
      if (hops > MAX_REDIRECTS) throw this.#badRedirect("too many redirects");
      url = verdict.target;
    }
  }

  /** Anonymous, and from the target's own origin only: it is nobody that we know. */
  async #foreignBearer(
    answer: Answer,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const { tokens, foreignExchange } = this.#options;
    const parameters = parseChallenges(
      answer.header("www-authenticate") ?? "",
    ).find(({ scheme }) => scheme === "bearer")?.parameters;
    const realm = parameters?.get("realm");
    if (parameters === undefined || realm === undefined) return undefined;
    if (!URL.canParse(realm)) return undefined;
    const url = new URL(realm);
    const isOwn =
      url.origin === answer.url.origin &&
      url.username === "" &&
      url.password === "";
    if (!isOwn) return undefined;
    const { token } = await tokens.obtain(
      {
        realm: url,
        service: parameters.get("service"),
        scope: parameters.get("scope") ?? "",
        credential: undefined,
      },
      foreignExchange,
      this.#nestedSlots,
      signal,
    );
    return `Bearer ${token}`;
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

  #throttleRefusal(kind: UpstreamRequestKind): UpstreamError | undefined {
    const retryAfterMs = this.#throttledMs(kind);
    return retryAfterMs > 0
      ? new UpstreamError("rate-limited", `${this.url}: throttled`, {
          upstream: this.#options.config.name,
          origin: this.origin,
          status: 429,
          retryAfterMs,
        })
      : undefined;
  }

  #restRefusal(): UpstreamError {
    return new UpstreamError("breaker-open", `${this.url}: rests`, {
      upstream: this.#options.config.name,
      origin: this.origin,
      retryAfterMs: this.breaker.retryAfterMs,
    });
  }

  #throttledMs(kind: UpstreamRequestKind): number {
    const lane = kind === "blob" ? "blob" : "small";
    return this.#throttledUntilMs[lane] - this.#options.clock.monotonicMs();
  }

  #badRedirect(reason: string): UpstreamError {
    return new UpstreamError("bad-response", `${this.url}: ${reason}`, {
      upstream: this.#options.config.name,
      origin: this.origin,
    });
  }
}
