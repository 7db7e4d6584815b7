import { discardBody } from "../wire/body.ts";
import { parseChallenges } from "./auth/challenge.ts";
import { UpstreamError } from "../wire/errors.ts";
import type { Answer, Exchange, ExchangeRequest } from "../wire/exchange.ts";
import { isRedirect, judgeRedirect, MAX_REDIRECTS } from "../wire/redirect.ts";
import { type Identity, requestHeaders } from "../wire/request-headers.ts";
import type { Slots } from "../wire/slots.ts";
import type { TokenRequest } from "./auth/token-request.ts";
import type { TokenSource } from "./auth/token-source.ts";

export interface RedirectsOptions {
  readonly upstream: string;
  readonly endpoint: URL;
  readonly identity: Identity;
  readonly tokens: TokenSource;
  /** To the endpoint's own origin. */
  readonly exchange: Exchange;
  /** To anywhere else. */
  readonly foreignExchange: Exchange;
  /** One is held while a target's own realm is asked. */
  readonly slots: Slots;
}

export interface FollowedRequest extends Pick<
  ExchangeRequest,
  "kind" | "method" | "url" | "signal"
> {
  readonly range?: string | undefined;
  /** For the endpoint's own origin alone. */
  readonly authorization: string | undefined;
}

/** Follows an endpoint's redirects to wherever they may lead; no credential goes along. */
export class Redirects {
  readonly #options: RedirectsOptions;

  constructor(options: RedirectsOptions) {
    this.#options = options;
  }

  /**
   * @param onOwnAnswer told of what the endpoint itself answers
   * @returns the first answer that is no redirect
   * @throws UpstreamError `bad-response` for a redirect that may not be followed
   */
  async follow(
    asked: FollowedRequest,
    onOwnAnswer: (answer: Answer) => void,
  ): Promise<Answer> {
    const { endpoint, identity, exchange, foreignExchange } = this.#options;
    const { kind, method, range, signal, authorization } = asked;
    let { url } = asked;
    let hasLeft = false;
    for (let hops = 0; ;) {
      const isOwn = url.origin === endpoint.origin;
      // A target may point back here, at a path of its choice: it gets no credential for that.
      hasLeft ||= !isOwn;
      const ask = (bearer: string | undefined): Promise<Answer> =>
        (isOwn ? exchange : foreignExchange)({
          kind,
          method,
          url,
          headers: requestHeaders(identity, { range, authorization: bearer }),
          signal,
        });
      let answer = await ask(hasLeft ? undefined : authorization);
      if (!hasLeft) onOwnAnswer(answer);
      if (hasLeft && answer.status === 401) {
        const request = this.#foreignToken(answer);
        if (request !== undefined) {
          discardBody(answer.body);
          answer = await ask(await this.#foreignBearer(request, signal));
        }
      }
      if (!isRedirect(answer.status)) return answer;
      discardBody(answer.body);
      const verdict = judgeRedirect(url, answer.header("location"));
      if ("refusal" in verdict) throw this.#refused(verdict.refusal);
      hops += 1;
      if (hops > MAX_REDIRECTS) throw this.#refused("too many redirects");
      url = verdict.target;
    }
  }

  /** Anonymous, and from the target's own origin only: it is nobody that we know. */
  #foreignToken({ header, url }: Answer): TokenRequest | undefined {
    const parameters = parseChallenges(header("www-authenticate") ?? "").find(
      ({ scheme }) => scheme === "bearer",
    )?.parameters;
    const text = parameters?.get("realm");
    if (parameters === undefined || text === undefined) return undefined;
    if (!URL.canParse(text)) return undefined;
    const realm = new URL(text);
    const isOwn =
      realm.origin === url.origin &&
      realm.username === "" &&
      realm.password === "";
    if (!isOwn) return undefined;
    return {
      realm,
      service: parameters.get("service"),
      scope: parameters.get("scope") ?? "",
      login: undefined,
    };
  }

  async #foreignBearer(
    request: TokenRequest,
    signal: AbortSignal,
  ): Promise<string> {
    const { tokens, foreignExchange, slots } = this.#options;
    const { token } = await tokens.obtain(
      request,
      foreignExchange,
      slots,
      signal,
    );
    return `Bearer ${token}`;
  }

  #refused(reason: string): UpstreamError {
    const { upstream, endpoint } = this.#options;
    const { origin } = endpoint;
    return new UpstreamError("bad-response", `${origin}: ${reason}`, {
      upstream,
      origin,
    });
  }
}
