import { LRUCache } from "lru-cache";
import { parseChallenges } from "./challenge.ts";
import { CredentialError, type Login } from "./credentials.ts";
import { UpstreamError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { judgeRealm } from "./realm.ts";
import type { Slots } from "./slots.ts";
import { basicAuthorization, type TokenRequest } from "./token-request.ts";
import type { TokenSource } from "./token-source.ts";

/** What is sent as `Authorization`, and what is known of it. */
export interface SentAuthorization {
  readonly value: string;
  /** Of a bearer token. */
  readonly request?: TokenRequest;
  readonly token?: string;
  /** Made for this very request: a 401 to it is the last word. */
  readonly isNew: boolean;
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
}

/** Stands for the repository in a scope that was learnt from another one. */
const NAME = "\0";
const DEFAULT_SCOPE = `repository:${NAME}:pull`;
/** Those that differ from the rest; the cache holds its room from the start. */
const MAX_REPOSITORIES = 256;

/**
 * What one endpoint's requests are authorized with. Its last challenge is remembered and taken to
 * hold for every repository, so that only the very first request meets a 401.
 */
export class Authorization {
  readonly #options: AuthorizationOptions;
  #latest: Scheme | undefined;
  readonly #byRepository = new LRUCache<string, Scheme>({
    max: MAX_REPOSITORIES,
  });

  constructor(options: AuthorizationOptions) {
    this.#options = options;
  }

  /**
   * What the next request for a repository should carry; undefined where nothing is known yet or
   * nothing is needed.
   *
   * @param name the repository as the endpoint knows it
   * @param login whom to ask as; undefined: anonymous
   */
  async prepare(
    name: string,
    login: Login | undefined,
    signal: AbortSignal,
  ): Promise<SentAuthorization | undefined> {
    const learnt = this.#byRepository.get(name);
    const scheme = learnt ?? this.#latest;
    if (scheme === undefined) return undefined;
    if (scheme.name === "basic") {
      return login && { value: basicAuthorization(login), isNew: false };
    }
    try {
      return await this.#bearer(scheme, name, login, signal);
    } catch (error) {
      // The scope was only guessed from another repository's: this one may need no token.
      const isRefusal =
        error instanceof UpstreamError &&
        !(error instanceof CredentialError) &&
        (error.kind === "unauthorized" || error.kind === "denied");
      if (learnt === undefined && isRefusal) return undefined;
      throw error;
    }
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
        return this.#renew(scheme, name, sent, login, signal);
      }
      refusal = verdict.refusal;
    }
    if (hasBasic && login !== undefined) {
      if (sent !== undefined && sent.request === undefined) {
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
    this.#remember(scheme, name);
    return this.#bearer(scheme, name, login, signal);
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
