import { LRUCache } from "lru-cache";
import type { Clock } from "../../telemetry/clock.ts";
import { readBody } from "../../wire/body.ts";
import { CredentialError } from "../credentials/login.ts";
import { UpstreamError } from "../../wire/errors.ts";
import type { Answer, Exchange } from "../../wire/exchange.ts";
import { unlessAborted } from "../../wire/faults.ts";
import type { UpstreamObserver } from "../../wire/observer.ts";
import { isRedirect } from "../../wire/redirect.ts";
import type { Identity } from "../../wire/request-headers.ts";
import { dismiss, type HeldAnswer, sendWithRetry } from "../../wire/retry.ts";
import { ResourceRests } from "../resource-rests.ts";
import { DEFAULT_REST_MS } from "../../wire/retry-after.ts";
import type { Slots } from "../../wire/slots.ts";
import { statusFault } from "../../wire/status-faults.ts";
import {
  POST_REFUSED,
  type TokenMethod,
  tokenExchange,
  tokenKey,
  type TokenRequest,
} from "./token-request.ts";
import { type BearerToken, parseTokenResponse } from "./token-response.ts";

/** @see faults.md section 4 */
const MAX_TOKEN_BODY_BYTES = 65_536;
const MAX_TOKENS = 1_000;
const MAX_REFUSALS = 256;
const MAX_REALMS = 64;
const MAX_TOKEN_CHARACTERS = 4_194_304;
/** The part of its lifetime for which a token is used; the rest allows for clock differences. */
const USED_LIFE = 0.9;
/** Bound of a fetch: connection, headers, body and a retry; its callers may leave earlier. */
const FETCH_TIMEOUT_MS = 20_000;
/** How long a refusal is remembered: Docker Hub locks an account after too many wrong passwords. */
const REFUSAL_MS = 10_000;

export interface ObtainedToken {
  readonly token: string;
  /** True if the token was fetched for this request, or for another one at the same time. */
  readonly isNew: boolean;
}

export interface TokenSourceOptions {
  readonly upstream: string;
  readonly identity: Identity;
  readonly clock: Clock;
  readonly observer: UpstreamObserver;
  /** Ends all fetches. */
  readonly closing: AbortSignal;
}

interface CachedToken {
  readonly token: string;
  readonly renewAtMs: number;
}

/**
 * Bearer tokens of one upstream, one for each realm, service, scope and credential. Concurrent callers
 * share one fetch, and a token is kept for most of its lifetime by the monotonic clock.
 *
 * @see https://distribution.github.io/distribution/spec/auth/token/
 */
export class TokenSource {
  readonly #options: TokenSourceOptions;
  readonly #tokens = new LRUCache<string, CachedToken>({
    max: MAX_TOKENS,
    maxSize: MAX_TOKEN_CHARACTERS,
    sizeCalculation: ({ token }, key) => token.length + key.length,
  });
  readonly #refusals = new LRUCache<
    string,
    { readonly error: UpstreamError; readonly untilMs: number }
  >({ max: MAX_REFUSALS });
  /** Tokens whose fetch timed out or failed repeatedly rest before the next fetch. */
  readonly #rests: ResourceRests;
  readonly #fetches = new Map<string, Promise<string>>();
  /** Origins of realms without OAuth2. */
  readonly #getOnly = new LRUCache<string, true>({ max: MAX_REALMS });

  constructor(options: TokenSourceOptions) {
    this.#options = options;
    this.#rests = new ResourceRests(options.clock);
  }

  /** The number of valid tokens in memory. */
  get heldCount(): number {
    const nowMs = this.#options.clock.monotonicMs();
    let count = 0;
    for (const { renewAtMs } of this.#tokens.values()) {
      if (nowMs < renewAtMs) count += 1;
    }
    return count;
  }

  /**
   * Returns a token from memory or from its realm.
   *
   * @param exchange sends requests to the realm
   * @param slots a slot is held during each request
   * @param signal ends the wait of this caller; the fetch continues for others
   * @throws CredentialError if the realm refuses the login; UpstreamError `unauthorized` or `denied`
   *   if it refuses the scope, `bad-response` if it sends no token, or the error of the connection
   */
  async obtain(
    request: TokenRequest,
    exchange: Exchange,
    slots: Slots,
    signal: AbortSignal,
  ): Promise<ObtainedToken> {
    const key = tokenKey(request);
    const nowMs = this.#options.clock.monotonicMs();
    const cached = this.#tokens.get(key);
    if (cached !== undefined && nowMs < cached.renewAtMs) {
      return { token: cached.token, isNew: false };
    }
    const refusal = this.#refusals.get(key);
    if (refusal !== undefined && nowMs < refusal.untilMs) {
      throw remembered(refusal.error, refusal.untilMs - nowMs);
    }
    let fetching = this.#fetches.get(key);
    if (fetching === undefined) {
      fetching = this.#fetch(key, request, exchange, slots).finally(() =>
        this.#fetches.delete(key),
      );
      this.#fetches.set(key, fetching);
    }
    const token = await unlessAborted(fetching, signal, {
      upstream: this.#options.upstream,
      origin: request.realm.origin,
    });
    return { token, isNew: true };
  }

  /** Drops a token that the upstream refused, unless a newer one has replaced it. */
  drop(request: TokenRequest, token: string): void {
    const key = tokenKey(request);
    if (this.#tokens.peek(key)?.token === token) this.#tokens.delete(key);
  }

  async #fetch(
    key: string,
    request: TokenRequest,
    exchange: Exchange,
    slots: Slots,
  ): Promise<string> {
    try {
      const { token, lifeMs } = await this.#ask(request, exchange, slots);
      // Counted from the answer; the unused tenth covers the time of the transfer.
      const renewAtMs = this.#options.clock.monotonicMs() + lifeMs * USED_LIFE;
      this.#tokens.set(key, { token, renewAtMs });
      this.#refusals.delete(key);
      this.#rests.noteSuccess(key);
      return token;
    } catch (error) {
      const restMs = restAfter(error) ?? this.#restAfterFailure(key, error);
      if (restMs !== undefined && error instanceof UpstreamError) {
        const untilMs = this.#options.clock.monotonicMs() + restMs;
        this.#refusals.set(key, { error, untilMs });
      }
      throw error;
    }
  }

  #restAfterFailure(key: string, error: unknown): number | undefined {
    if (!(error instanceof UpstreamError)) return undefined;
    // The breaker of the realm decides when to retry.
    if (error.kind === "breaker-open") return undefined;
    this.#rests.noteFailure(key, error);
    return this.#rests.get(key)?.retryAfterMs;
  }

  async #ask(
    request: TokenRequest,
    exchange: Exchange,
    slots: Slots,
  ): Promise<BearerToken> {
    const { origin } = request.realm;
    const isPost =
      request.login?.isIdentityToken === true && !this.#getOnly.has(origin);
    if (isPost) {
      const held = await this.#send(request, "POST", exchange, slots);
      if (!POST_REFUSED.has(held.answer.status)) {
        return this.#readToken(request, held);
      }
      dismiss(held);
    }
    const held = await this.#send(request, "GET", exchange, slots);
    const token = await this.#readToken(request, held);
    if (isPost) this.#getOnly.set(origin, true);
    return token;
  }

  #send(
    request: TokenRequest,
    method: TokenMethod,
    exchange: Exchange,
    slots: Slots,
  ): Promise<HeldAnswer> {
    const { upstream, identity, clock, closing } = this.#options;
    const signal = AbortSignal.any([
      closing,
      AbortSignal.timeout(FETCH_TIMEOUT_MS),
    ]);
    return sendWithRetry({
      upstream,
      clock,
      signal,
      send: async () => {
        const release = await slots.acquire(signal);
        try {
          const answer = await exchange(
            tokenExchange(request, method, identity, signal),
          );
          return { answer, release };
        } catch (error) {
          release();
          throw error;
        }
      },
    });
  }

  async #readToken(
    request: TokenRequest,
    held: HeldAnswer,
  ): Promise<BearerToken> {
    const { upstream, observer } = this.#options;
    const { origin } = request.realm;
    try {
      const { answer } = held;
      const { status } = answer;
      if (isRedirect(status)) {
        throw new UpstreamError(
          "bad-response",
          `${origin}: got a redirect from the token realm; expected a token`,
          { upstream, origin, status },
        );
      }
      const fault = this.#faultOf(answer, request);
      if (fault !== undefined) throw fault;
      const body = await readBody(
        answer,
        MAX_TOKEN_BODY_BYTES,
        upstream,
        (bytes) => observer.onReceivedBytes(bytes),
      ).catch((error: UpstreamError) => {
        throw ofRealm(error);
      });
      const token = parseTokenResponse(body);
      if (token === undefined) {
        throw new UpstreamError(
          "bad-response",
          `${origin}: got no token from the token realm`,
          { upstream, origin },
        );
      }
      return token;
    } finally {
      dismiss(held);
    }
  }

  /** A 401 concerns the login; a 403 concerns the scope, as GHCR and GitLab answer it. */
  #faultOf(answer: Answer, { login }: TokenRequest): UpstreamError | undefined {
    const { upstream, clock } = this.#options;
    const fault = statusFault(answer, upstream, clock);
    if (fault === undefined) return undefined;
    if (fault.kind !== "unauthorized" || login === undefined) {
      return ofRealm(fault);
    }
    const { origin } = answer.url;
    return new CredentialError(`${origin}: refused the credentials`, {
      upstream,
      origin,
      status: answer.status,
      cause: fault,
    });
  }
}

/** Updates the remaining pause of a rate limit. */
function remembered(error: UpstreamError, leftMs: number): UpstreamError {
  if (error.kind !== "rate-limited") return error;
  const { kind, message, upstream, origin, status } = error;
  return new UpstreamError(kind, message, {
    upstream,
    ...(origin === undefined ? {} : { origin }),
    ...(status === undefined ? {} : { status }),
    retryAfterMs: leftMs,
    cause: error,
  });
}

/** Returns how long the same token is not requested again; undefined if it may be immediately. */
function restAfter(error: unknown): number | undefined {
  if (!(error instanceof UpstreamError)) return undefined;
  if (error.kind === "rate-limited") {
    return error.retryAfterMs ?? DEFAULT_REST_MS;
  }
  return error.kind === "unauthorized" || error.kind === "denied"
    ? REFUSAL_MS
    : undefined;
}

/** Converts a 404 or a too large body of a realm: neither concerns the manifest or blob of the request. */
function ofRealm(error: UpstreamError): UpstreamError {
  const { kind, message, upstream, origin, status } = error;
  if (kind !== "not-found" && kind !== "too-large") return error;
  return new UpstreamError("bad-response", message, {
    upstream,
    ...(origin === undefined ? {} : { origin }),
    ...(status === undefined ? {} : { status }),
    cause: error,
  });
}
