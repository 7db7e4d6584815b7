import type { UpstreamConfig } from "../config/config.ts";
import type { Clock } from "../telemetry/clock.ts";
import { UpstreamError } from "../wire/errors.ts";
import type { Exchange } from "../wire/exchange.ts";
import { type FaultPlace, unlessAborted } from "../wire/faults.ts";
import type { UpstreamObserver } from "../wire/observer.ts";
import type { Identity } from "../wire/request-headers.ts";
import { type HeldAnswer, sendWithRetry } from "../wire/retry.ts";
import { DEFAULT_REST_MS } from "../wire/retry-after.ts";
import { Slots } from "../wire/slots.ts";
import { Authorization, type SentAuthorization } from "./auth/authorization.ts";
import { AuthorizedRequests } from "./auth/authorized-requests.ts";
import type { TokenSource } from "./auth/token-source.ts";
import {
  CredentialPool,
  type PoolMember,
} from "./credentials/credential-pool.ts";
import {
  CredentialError,
  isOwnFault,
  type Login,
} from "./credentials/login.ts";
import { refused, throttled } from "./endpoint-refusals.ts";
import type { EndpointRequest } from "./endpoint-request.ts";
import { Redirects } from "./follow-redirects.ts";

/** Lists may be long and slow. Manifests and tokens are small and are not limited. */
const LIST_SLOTS = 8;
const UNLIMITED = 0;

export interface EndpointSenderOptions {
  readonly endpoint: URL;
  readonly config: UpstreamConfig;
  readonly identity: Identity;
  readonly clock: Clock;
  readonly observer: UpstreamObserver;
  readonly tokens: TokenSource;
  /** Sends to the endpoint's own origin. */
  readonly exchange: Exchange;
  /** Sends to any other origin. */
  readonly foreignExchange: Exchange;
  /** Called with each manifest answer and its status. */
  readonly onManifestAnswer: (request: EndpointRequest, status: number) => void;
}

/**
 * Sends requests to one endpoint: limits how many run at a time, chooses the account, authorizes,
 * follows redirects and retries.
 */
export class EndpointSender {
  readonly credentials: CredentialPool;
  readonly #options: EndpointSenderOptions;
  readonly #place: FaultPlace;
  /** The path between `/v2/` and the repository, with a trailing slash; usually empty. */
  readonly #prefix: string;
  readonly #slots: Readonly<Record<EndpointRequest["kind"], Slots>>;
  readonly #redirects: Redirects;
  readonly #authorized: AuthorizedRequests;

  constructor(options: EndpointSenderOptions) {
    const { endpoint, config, clock, identity, tokens } = options;
    const { exchange, foreignExchange } = options;
    const upstream = config.name;
    this.#options = options;
    this.#place = { upstream, origin: endpoint.origin };
    const path = endpoint.pathname.replaceAll(/^\/+|\/+$/g, "");
    this.#prefix = path === "" ? "" : `${path}/`;
    const lists = new Slots(LIST_SLOTS, upstream);
    this.#slots = {
      blob: new Slots(config.concurrency, upstream),
      manifest: new Slots(UNLIMITED, upstream),
      tags: lists,
      referrers: lists,
    };
    const tokenSlots = new Slots(UNLIMITED, upstream);
    this.#redirects = new Redirects({
      upstream,
      endpoint,
      identity,
      tokens,
      exchange,
      foreignExchange,
      slots: tokenSlots,
    });
    this.#authorized = new AuthorizedRequests({
      endpoint,
      identity,
      exchange,
      authorization: new Authorization({
        upstream,
        endpoint,
        tokenRealms: config.tokenRealms,
        tokens,
        exchange: foreignExchange,
        slots: tokenSlots,
        clock,
      }),
    });
    this.credentials = new CredentialPool({
      upstream,
      endpoint,
      credentials: config.credentials,
      clock,
    });
  }

  /** True if no token or login is available, although the endpoint itself may be up. */
  get isUnauthorized(): boolean {
    return this.#authorized.isUnauthorized;
  }

  /** True if no request runs and no body is being read. */
  get isIdle(): boolean {
    return Object.values(this.#slots).every(({ isIdle }) => isIdle);
  }

  /**
   * Sends a request. If the quota of an account is used up or its login is refused, the request is
   * sent again with the next account.
   *
   * @returns an answer with any status but 429; it holds its slot
   */
  async send(request: EndpointRequest): Promise<HeldAnswer> {
    const lane = request.kind;
    const tried = new Set<PoolMember>();
    let failure: UpstreamError | undefined;
    for (;;) {
      const member = this.credentials.choose(lane, tried);
      if (member === undefined) {
        const restMs = this.credentials.restMs(lane) || 1_000;
        throw failure ?? throttled(this.#place, restMs);
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
        this.#judgeAccount(member, request, error);
        if (failure?.kind !== "rate-limited") failure = error;
      } finally {
        endPull?.();
      }
    }
  }

  /** Notes what the error means for the account. @throws the error if another account cannot help */
  #judgeAccount(
    member: PoolMember,
    request: EndpointRequest,
    error: UpstreamError,
  ): void {
    const { observer } = this.#options;
    if (error.kind === "rate-limited") {
      restAfter(member, request, error);
    } else if (error instanceof CredentialError) {
      this.#authorized.noteFailure(error);
      if (!error.isLocal) member.refuse();
    } else {
      throw error;
    }
    if (isOwnFault(error)) {
      observer.onCredentialFault(member.name, error.message);
    } else if (!member.isAnonymous) {
      observer.onFault(
        error.kind,
        `${error.message} (credential ${member.name})`,
      );
    }
  }

  /** Sends once more if the login is refused and its source has a newer one. */
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
    const { config, clock, endpoint, onManifestAnswer } = this.#options;
    const { kind, repository, signal } = request;
    const name = this.#prefix + repository;
    const url =
      request.target instanceof URL
        ? request.target
        : new URL(`/v2/${name}/${request.target}`, endpoint);
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
          // Requests that wait for the slot check the rest of the account and the resource next.
          beforeRelease: (error) => {
            restAfter(member, request, error);
            if (this.credentials.choose(kind, tried) === undefined) {
              request.permit.fail(error, kind !== "manifest");
            }
          },
        });
        member.noteAnswer(kind);
        if (kind === "manifest" && request.permit.resource !== undefined) {
          onManifestAnswer(request, held.answer.status);
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
      // The account or the endpoint may have failed while this request waited.
      const restMs = member.restMs(kind);
      if (restMs > 0) throw throttled(this.#place, restMs);
      const { refusal } = permit;
      if (refusal !== undefined) throw refused(this.#place, refusal);
      // A request without authorization is counted by address, not against an account's budget.
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
      // Report before the slot is free: requests that wait for it check the breaker next.
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
}

function restAfter(
  member: PoolMember,
  { kind, permit }: EndpointRequest,
  error: UpstreamError,
): void {
  const restMs = error.retryAfterMs ?? DEFAULT_REST_MS;
  member.throttle(kind, permit.resource ?? "", restMs);
}
