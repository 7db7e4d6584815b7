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
  /** Sends to the endpoint's own origin. */
  readonly exchange: Exchange;
  /** Sends to any other origin. */
  readonly foreignExchange: Exchange;
  /** A slot is held while the token realm of a redirect target is asked. */
  readonly slots: Slots;
}

export interface FollowedRequest extends Pick<
  ExchangeRequest,
  "kind" | "method" | "url" | "signal"
> {
  readonly range?: string | undefined;
  /** Sent to the endpoint's own origin only. */
  readonly authorization: string | undefined;
}

/** Follows the redirects of an endpoint, without sending credentials to other hosts. */
export class Redirects {
  readonly #options: RedirectsOptions;

  constructor(options: RedirectsOptions) {
    this.#options = options;
  }

  /**
   * Sends a request and follows its redirects.
   *
   * @param onOwnAnswer called with each answer of the endpoint itself
   * @returns the first answer that is not a redirect
   * @throws UpstreamError `bad-response` for a redirect that may not be followed
   */
  async follow(
    request: FollowedRequest,
    onOwnAnswer: (answer: Answer) => void,
  ): Promise<Answer> {
    const { endpoint, identity, exchange, foreignExchange } = this.#options;
    const { kind, method, range, signal, authorization } = request;
    let { url } = request;
    let hasLeft = false;
    for (let hops = 0; ;) {
      const isOwn = url.origin === endpoint.origin;
      // A target may redirect back to the endpoint, to any path: that request gets no credential.
      hasLeft ||= !isOwn;
      const send = (bearer: string | undefined): Promise<Answer> =>
        (isOwn ? exchange : foreignExchange)({
          kind,
          method,
          url,
          headers: requestHeaders(identity, { range, authorization: bearer }),
          signal,
        });
      let answer = await send(hasLeft ? undefined : authorization);
      if (!hasLeft) onOwnAnswer(answer);
      if (hasLeft && answer.status === 401) {
        const wanted = this.#foreignToken(answer);
        if (wanted !== undefined) {
          discardBody(answer.body);
          answer = await send(await this.#foreignBearer(wanted, signal));
        }
      }
      if (!isRedirect(answer.status)) return answer;
      discardBody(answer.body);
      const verdict = judgeRedirect(url, answer.header("location"));
      if ("refusal" in verdict) throw this.#refused(verdict.refusal);
      hops += 1;
      if (hops > MAX_REDIRECTS)
        throw this.#refused(`got more than ${MAX_REDIRECTS} redirects`);
      url = verdict.target;
    }
  }

  /** The request for an anonymous token, from the target's own origin only: the target is not trusted. */
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
