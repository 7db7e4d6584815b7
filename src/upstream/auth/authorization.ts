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

/** The `Authorization` of a request, and its origin. */
export interface SentAuthorization {
  /** Undefined: none is sent, because the remembered challenge led to a failure. */
  readonly value: string | undefined;
  /** The request that a bearer token was obtained for. */
  readonly request?: TokenRequest;
  readonly token?: string;
  /** Obtained for this request: a 401 to it is final. */
  readonly isNew: boolean;
  /** The remembered challenge and the failure of its realm. */
  readonly failed?: { readonly scheme: Scheme; readonly error: UpstreamError };
}

/** The authentication scheme of an endpoint, as its challenges state it. */
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
  /** Sends requests to realms. */
  readonly exchange: Exchange;
  readonly slots: Slots;
  readonly clock: Clock;
}

/** Placeholder for the repository in a scope that is used for all repositories. */
const NAME = "\0";
const DEFAULT_SCOPE = `repository:${NAME}:pull`;
/** Repositories whose scheme differs from the others; lru-cache allocates this capacity up front. */
const MAX_REPOSITORIES = 256;
/** A failed realm that the endpoint has named again is retried after this time. */
const FAILED_REALM_MS = 5_000;

/**
 * Authorizes the requests of one endpoint. The last challenge is remembered and used for every
 * repository, so that only the first request is answered 401. If the remembered realm fails, a request
 * is sent without a token, and the challenge in its answer replaces the remembered one.
 */
export class Authorization {
  readonly #options: AuthorizationOptions;
  #latest: Scheme | undefined;
  readonly #byRepository = new LRUCache<string, Scheme>({
    max: MAX_REPOSITORIES,
  });
  /** Failed realms that the endpoint named again, with the time until which they are not retried. */
  readonly #failed = new LRUCache<
    string,
    { readonly error: UpstreamError; readonly untilMs: number }
  >({ max: MAX_REPOSITORIES });

  constructor(options: AuthorizationOptions) {
    this.#options = options;
  }

  /**
   * Returns the authorization of the next request for a repository; undefined if none is known or
   * needed. A result without a value makes the endpoint send its challenge again.
   *
   * @param name the repository's name at the endpoint
   * @param login undefined: anonymous
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

  /** Forgets a failed challenge after a request without a token was not answered 401. */
  noteAnswered(name: string, sent: SentAuthorization): void {
    const scheme = sent.failed?.scheme;
    if (scheme === undefined) return;
    if (this.#byRepository.get(name) === scheme)
      this.#byRepository.delete(name);
    if (this.#latest === scheme) this.#latest = undefined;
  }

  /**
   * Returns the authorization with which a request that was answered 401 is sent again.
   *
   * @param header the `WWW-Authenticate` of the answer
   * @throws CredentialError if the login was refused; UpstreamError `unauthorized` if no other
   *   authorization is available, `bad-response` if the realm of the challenge is not allowed
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
    const used = sent?.value === undefined ? undefined : sent;
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
        return this.#renew(scheme, name, used, login, signal);
      }
      refusal = verdict.refusal;
    }
    if (hasBasic && login !== undefined) {
      if (used !== undefined && used.request === undefined) {
        throw new CredentialError(
          `${endpoint.origin}: refused the credentials`,
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
    throw this.#unauthorized("got no supported challenge");
  }

  get #nowMs(): number {
    return this.#options.clock.monotonicMs();
  }

  /** @throws the failure of the realm if the endpoint names the same one again */
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
      if (sent.isNew) throw this.#unauthorized("refused a new token");
      this.#options.tokens.drop(request, sent.token ?? "");
    }
    const renewed = await this.#bearer(scheme, name, login, signal);
    // Only now: an invalid challenge must not replace one that worked.
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
    const isException =
      this.#latest !== undefined && !isSameScheme(this.#latest, scheme);
    if (isException || this.#byRepository.has(name)) {
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
 * True if the remembered challenge may be outdated: its realm is unreachable, returns no tokens, or
 * refuses a scope that was derived from another repository's. A refused login and a rate limit say
 * nothing about the challenge.
 */
function mayBeOutdated(error: unknown): error is UpstreamError {
  return (
    error instanceof UpstreamError &&
    !(error instanceof CredentialError) &&
    error.kind !== "rate-limited"
  );
}

/**
 * Replaces the repository's name in a scope by a placeholder. A scope without the name (`aws` of ECR
 * Public) stays as it is; a missing scope becomes the one that every registry supports.
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
