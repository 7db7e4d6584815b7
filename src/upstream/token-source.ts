import { LRUCache } from "lru-cache";
import type { UpstreamCredential } from "../config/config.ts";
import type { Clock } from "../telemetry/clock.ts";
import { readBody } from "./body.ts";
import { UpstreamError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { abortFault } from "./faults.ts";
import type { UpstreamObserver } from "./observer.ts";
import { isRedirect } from "./redirect.ts";
import { type Identity, requestHeaders } from "./request-headers.ts";
import { dismiss, sendWithRetry } from "./retry.ts";
import type { Slots } from "./slots.ts";
import { statusFault } from "./status-faults.ts";
import { type BearerToken, parseTokenResponse } from "./token-response.ts";

/** @see faults.md section 4 */
const MAX_TOKEN_BODY_BYTES = 65_536;
const MAX_TOKENS = 1_000;
const MAX_REFUSALS = 256;
const MAX_TOKEN_CHARACTERS = 4_194_304;
/** Renewed when so much of its life is over, before an upstream's clock can disagree. */
const USED_LIFE = 0.9;
/** Connection, headers, body and a retry; whoever waits may leave earlier. */
const FETCH_TIMEOUT_MS = 20_000;
/** A refusal is remembered: Docker Hub locks an account out after too many wrong passwords. */
const REFUSAL_MS = 10_000;

/** What a token is for. One realm may serve many services, a service many scopes. */
export interface TokenRequest {
  /** Judged before: credentials go there. */
  readonly realm: URL;
  readonly service: string | undefined;
  /** As the challenge told it; several are parted by spaces. */
  readonly scope: string;
  /** Undefined: anonymous. */
  readonly credential: UpstreamCredential | undefined;
}

export interface ObtainedToken {
  readonly token: string;
  /** It came for this very request, or for one that waited with it. */
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
 * Bearer tokens of one upstream: one for each realm, service, scope and credential, fetched once
 * for all who ask at the same time and kept for nearly all its life by the monotonic clock.
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
  readonly #fetches = new Map<string, Promise<string>>();

  constructor(options: TokenSourceOptions) {
    this.#options = options;
  }

  /**
   * @param exchange how the realm is asked
   * @param slots one of them is held while it is asked
   * @param signal ends the wait of this caller; the fetch goes on for the others
   * @throws UpstreamError `unauthorized` or `denied` when the realm refuses, `bad-response` when
   *   it sends no token, else whatever went wrong on the way
   */
  async obtain(
    request: TokenRequest,
    exchange: Exchange,
    slots: Slots,
    signal: AbortSignal,
  ): Promise<ObtainedToken> {
    const key = keyOf(request);
    const nowMs = this.#options.clock.monotonicMs();
    const cached = this.#tokens.get(key);
    if (cached !== undefined && nowMs < cached.renewAtMs) {
      return { token: cached.token, isNew: false };
    }
    const refusal = this.#refusals.get(key);
    if (refusal !== undefined && nowMs < refusal.untilMs) throw refusal.error;
    let fetching = this.#fetches.get(key);
    if (fetching === undefined) {
      fetching = this.#fetch(key, request, exchange, slots).finally(() =>
        this.#fetches.delete(key),
      );
      this.#fetches.set(key, fetching);
    }
    const token = await this.#waitFor(fetching, request.realm, signal);
    return { token, isNew: true };
  }

  /** An upstream did not take it; a newer one is left alone. */
  drop(request: TokenRequest, token: string): void {
    const key = keyOf(request);
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
      // Counted from the answer: that it was on its way is in the tenth that is not used.
      const renewAtMs = this.#options.clock.monotonicMs() + lifeMs * USED_LIFE;
      this.#tokens.set(key, { token, renewAtMs });
      this.#refusals.delete(key);
      return token;
    } catch (error) {
      if (
        error instanceof UpstreamError &&
        (error.kind === "unauthorized" || error.kind === "denied")
      ) {
        const untilMs = this.#options.clock.monotonicMs() + REFUSAL_MS;
        this.#refusals.set(key, { error, untilMs });
      }
      throw error;
    }
  }

  async #ask(
    request: TokenRequest,
    exchange: Exchange,
    slots: Slots,
  ): Promise<BearerToken> {
    const { upstream, identity, clock, observer, closing } = this.#options;
    const { origin } = request.realm;
    const signal = AbortSignal.any([
      closing,
      AbortSignal.timeout(FETCH_TIMEOUT_MS),
    ]);
    const held = await sendWithRetry({
      upstream,
      clock,
      signal,
      send: async () => {
        const release = await slots.acquire(signal);
        try {
          const answer = await exchange({
            kind: "token",
            method: "GET",
            url: tokenUrl(request),
            headers: requestHeaders(identity, {
              accept: "application/json",
              authorization:
                request.credential && basicAuthorization(request.credential),
            }),
            signal,
          });
          return { answer, release };
        } catch (error) {
          release();
          throw error;
        }
      },
    });
    try {
      const { answer } = held;
      const { status } = answer;
      if (isRedirect(status)) {
        throw new UpstreamError(
          "bad-response",
          `${origin}: the token realm redirects`,
          { upstream, origin, status },
        );
      }
      const fault = statusFault(answer, upstream, clock);
      if (fault !== undefined) throw ofRealm(fault);
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
          `${origin}: the token realm sent no token`,
          { upstream, origin },
        );
      }
      return token;
    } finally {
      dismiss(held);
    }
  }

  async #waitFor(
    fetching: Promise<string>,
    realm: URL,
    signal: AbortSignal,
  ): Promise<string> {
    const { promise, reject } = Promise.withResolvers<never>();
    const leave = (): void =>
      reject(
        abortFault(signal, {
          upstream: this.#options.upstream,
          origin: realm.origin,
        }),
      );
    if (signal.aborted) leave();
    signal.addEventListener("abort", leave, { once: true });
    try {
      return await Promise.race([fetching, promise]);
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }
}

/** A realm's 404 or its endless body says nothing of the manifest or blob that the token was for. */
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

export function basicAuthorization(credential: UpstreamCredential): string {
  const pair = `${credential.username}:${credential.password.reveal()}`;
  return `Basic ${Buffer.from(pair, "utf8").toString("base64")}`;
}

/** A realm may hold a query of its own; it stays in front. */
function tokenUrl({ realm, service, scope, credential }: TokenRequest): URL {
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.append("service", service);
  for (const one of scope.split(" ")) {
    if (one !== "") url.searchParams.append("scope", one);
  }
  if (credential !== undefined) {
    url.searchParams.append("account", credential.username);
  }
  return url;
}

function keyOf({ realm, service, scope, credential }: TokenRequest): string {
  return JSON.stringify([realm.href, service, scope, credential?.username]);
}
