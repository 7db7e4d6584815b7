import { LRUCache } from "lru-cache";
import type { Clock } from "../../telemetry/clock.ts";
import { parseChallenges } from "./challenge.ts";
import { CredentialError, type Login } from "../credentials/login.ts";
import { UpstreamError } from "../../wire/errors.ts";
import type { Exchange } from "../../wire/exchange.ts";
import { judgeRealm } from "./realm.ts";
import type { Slots } from "../../wire/slots.ts";
import {
  basicAuthorization,
  tokenKey,
  type TokenRequest,
} from "./token-request.ts";
import type { TokenSource } from "./token-source.ts";

/** What is sent as `Authorization`, and what is known of it. */
export interface SentAuthorization {
  /** Undefined: nothing, because what is remembered led to a failure. */
  readonly value: string | undefined;
  /** Of a bearer token. */
  readonly request?: TokenRequest;
  readonly token?: string;
  /** Made for this very request: a 401 to it is the last word. */
  readonly isNew: boolean;
  /** The challenge that was remembered, and how its realm failed. */
  readonly failed?: { readonly scheme: Scheme; readonly error: UpstreamError };
}

/** How an endpoint wants to be addressed, learnt from its challenges. */
type Scheme =
  | { readonly name: "basic" }
  | {
      readonly name: "bearer";
      readonly realm: URL;
      readonly service: string | undefined;
      readonly scope: string;
    };

export interface AuthorizationOptions {
  readonly upstream: string;
  readonly endpoint: URL;
  readonly tokenRealms: readonly string[];
  readonly tokens: TokenSource;
  /** How realms are asked. */
  readonly exchange: Exchange;
  readonly slots: Slots;
  readonly clock: Clock;
}

/** Stands for the repository in a scope that was learnt from another one. */
const NAME = "\0";
const DEFAULT_SCOPE = `repository:${NAME}:pull`;
/** Those that differ from the rest; the cache holds its room from the start. */
const MAX_REPOSITORIES = 256;
/** A realm that failed, and that the endpoint has just named again, is asked again after this. */
const FAILED_REALM_MS = 5_000;

/**
 * What one endpoint's requests are authorized with. Its last challenge is remembered and taken to
 * hold for every repository, so that only the very first request meets a 401. The memory is only a
 * shortcut: where its realm fails, the endpoint is asked without a token, and its answer replaces it.
 */
export class Authorization {
  readonly #options: AuthorizationOptions;
  #latest: Scheme | undefined;
  readonly #byRepository = new LRUCache<string, Scheme>({
    max: MAX_REPOSITORIES,
  });
  /** Named again by the endpoint after they had failed, with the time until which that counts. */
  readonly #failed = new LRUCache<
    string,
    { readonly error: UpstreamError; readonly untilMs: number }
  >({ max: MAX_REPOSITORIES });

  constructor(options: AuthorizationOptions) {
    this.#options = options;
  }

  /**
   * What the next request for a repository should carry; undefined where nothing is known yet or
   * nothing is needed. Without a value it asks for the challenge again.
   *
   * @param name the repository as the endpoint knows it
   * @param login whom to ask as; undefined: anonymous
   */
  async prepare(
    name: string,
    login: Login | undefined,
    signal: AbortSignal,
  ): Promise<SentAuthorization | undefined> {
    const scheme = this.#byRepository.get(name) ?? this.#latest;
    if (scheme === undefined) return undefined;
    if (scheme.name === "basic") {
      return login && { value: basicAuthorization(login), isNew: false };
    }
    const key = tokenKey(this.#request(scheme, name, login));
    const failed = this.#failed.get(key);
    if (failed !== undefined && this.#nowMs < failed.untilMs) {
      throw failed.error;
    }
    try {
      return await this.#bearer(scheme, name, login, signal);
    } catch (error) {
      if (signal.aborted || !mayBeOutdated(error)) throw error;
      return { value: undefined, isNew: false, failed: { scheme, error } };
    }
  }

  /** A request that was sent without a token, because of a failure, was not answered 401. */
  noteAnswered(name: string, sent: SentAuthorization): void {
    const scheme = sent.failed?.scheme;
    if (scheme === undefined) return;
    if (this.#byRepository.get(name) === scheme)
      this.#byRepository.delete(name);
    if (this.#latest === scheme) this.#latest = undefined;
  }

  /**
   * What a request that was answered 401 should be sent again with.
   *
   * @param header its `WWW-Authenticate`
   * @throws CredentialError where the login was refused; UpstreamError `unauthorized` where nothing
   *   better is to be had, `bad-response` where the challenge leads to a place that may not be asked
   */
  async answer(
    name: string,
    header: string | undefined,
    sent: SentAuthorization | undefined,
    login: Login | undefined,
    signal: AbortSignal,
  ): Promise<SentAuthorization> {
    const { endpoint, upstream, tokenRealms } = this.#options;
    const challenges = parseChallenges(header ?? "");
    const shown = sent?.value === undefined ? undefined : sent;
    const bearer = challenges.find(({ scheme }) => scheme === "bearer");
    const hasBasic = challenges.some(({ scheme }) => scheme === "basic");
    let refusal: string | undefined;
    if (bearer !== undefined) {
      const verdict = await judgeRealm(bearer.parameters.get("realm"), {
        upstream,
        endpoint,
        tokenRealms,
      });
      if ("realm" in verdict) {
        const scheme: Scheme = {
          name: "bearer",
          realm: verdict.realm,
          service: bearer.parameters.get("service"),
          scope: toTemplate(bearer.parameters.get("scope"), name),
        };
        if (sent?.failed !== undefined) {
          this.#assertOther(scheme, name, login, sent.failed);
        }
        return this.#renew(scheme, name, shown, login, signal);
      }
      refusal = verdict.refusal;
    }
    if (hasBasic && login !== undefined) {
      if (shown !== undefined && shown.request === undefined) {
        throw new CredentialError(
          `${endpoint.origin}: the credentials were refused`,
          { upstream, origin: endpoint.origin, status: 401 },
        );
      }
      this.#remember({ name: "basic" }, name);
      return { value: basicAuthorization(login), isNew: true };
    }
    if (refusal !== undefined) {
      throw new UpstreamError("bad-response", refusal, {
        upstream,
        origin: endpoint.origin,
        status: 401,
      });
    }
    throw this.#unauthorized("no challenge that can be answered");
  }

  get #nowMs(): number {
    return this.#options.clock.monotonicMs();
  }

  /** @throws the failure of the realm that the endpoint names again */
  #assertOther(
    scheme: Scheme & { readonly name: "bearer" },
    name: string,
    login: Login | undefined,
    failed: NonNullable<SentAuthorization["failed"]>,
  ): void {
    if (!isSameScheme(scheme, failed.scheme)) return;
    const { error } = failed;
    this.#failed.set(tokenKey(this.#request(scheme, name, login)), {
      error,
      untilMs: this.#nowMs + FAILED_REALM_MS,
    });
    throw error;
  }

  async #renew(
    scheme: Scheme & { readonly name: "bearer" },
    name: string,
    sent: SentAuthorization | undefined,
    login: Login | undefined,
    signal: AbortSignal,
  ): Promise<SentAuthorization> {
    const request = this.#request(scheme, name, login);
    if (sent?.request !== undefined && isSame(sent.request, request)) {
      if (sent.isNew) throw this.#unauthorized("a fresh token was refused");
      this.#options.tokens.drop(request, sent.token ?? "");
    }
    const renewed = await this.#bearer(scheme, name, login, signal);
    // Not before: a bad challenge does not take the place of one that worked.
    this.#remember(scheme, name);
    return renewed;
  }

  async #bearer(
    scheme: Scheme & { readonly name: "bearer" },
    name: string,
    login: Login | undefined,
    signal: AbortSignal,
  ): Promise<SentAuthorization> {
    const { tokens, exchange, slots } = this.#options;
    const request = this.#request(scheme, name, login);
    const { token, isNew } = await tokens.obtain(
      request,
      exchange,
      slots,
      signal,
    );
    return { value: `Bearer ${token}`, request, token, isNew };
  }

  #request(
    { realm, service, scope }: Scheme & { readonly name: "bearer" },
    name: string,
    login: Login | undefined,
  ): TokenRequest {
    return {
      realm,
      service,
      scope: scope.replaceAll(NAME, name),
      login,
    };
  }

  #remember(scheme: Scheme, name: string): void {
    const isOdd =
      this.#latest !== undefined && !isSameScheme(this.#latest, scheme);
    if (isOdd || this.#byRepository.has(name)) {
      this.#byRepository.set(name, scheme);
    }
    this.#latest = scheme;
  }

  #unauthorized(reason: string): UpstreamError {
    const { upstream, endpoint } = this.#options;
    return new UpstreamError("unauthorized", `${endpoint.origin}: ${reason}`, {
      upstream,
      origin: endpoint.origin,
      status: 401,
    });
  }
}

/**
 * Whether a remembered challenge may be what is wrong: its realm can't be reached, has no tokens, or
 * refuses a scope that may have been guessed from another repository's. A login that is refused, and
 * a realm that asks to be left alone, say nothing of the challenge.
 */
function mayBeOutdated(error: unknown): error is UpstreamError {
  return (
    error instanceof UpstreamError &&
    !(error instanceof CredentialError) &&
    error.kind !== "rate-limited"
  );
}

/**
 * The scope with the repository's name taken out, so that it fits the next one. One that does not
 * hold it (`aws` of ECR Public) fits all as it is; without one it is what every registry knows.
 */
function toTemplate(scope: string | undefined, name: string): string {
  return scope === undefined || scope === ""
    ? DEFAULT_SCOPE
    : scope
        .replaceAll(NAME, "")
        .replaceAll(`repository:${name}:`, `repository:${NAME}:`);
}

function isSame(one: TokenRequest, other: TokenRequest): boolean {
  return (
    one.realm.href === other.realm.href &&
    one.service === other.service &&
    one.scope === other.scope &&
    one.login?.id === other.login?.id
  );
}

function isSameScheme(one: Scheme, other: Scheme): boolean {
  if (one.name === "basic" || other.name === "basic") {
    return one.name === other.name;
  }
  return (
    one.realm.href === other.realm.href &&
    one.service === other.service &&
    one.scope === other.scope
  );
}
