import { LRUCache } from "lru-cache";
import type { Clock } from "../telemetry/clock.ts";
import { discardBody } from "../wire/body.ts";
import { Breaker, type BreakerPermit } from "./breaker.ts";
import { UpstreamError } from "../wire/errors.ts";
import type { Answer, Exchange, ExchangeRequest } from "../wire/exchange.ts";
import { severityOf } from "../wire/faults.ts";
import { probe } from "./probing.ts";
import { restOf } from "../wire/retry-after.ts";

/** Storage hosts have many names; the least recently used breakers are dropped. */
const MAX_ORIGINS = 64;

/**
 * Breakers for servers other than endpoints: token realms and redirect targets. Each origin has its
 * own breaker, so that a dead one neither delays requests nor counts as a dead endpoint.
 */
export class ForeignOrigins {
  readonly #upstream: string;
  readonly #clock: Clock;
  readonly #breakers = new LRUCache<string, Breaker>({ max: MAX_ORIGINS });

  constructor(upstream: string, clock: Clock) {
    this.#upstream = upstream;
    this.#clock = clock;
  }

  /** Wraps an exchange with the breakers, which all wrapped exchanges share. */
  guard(exchange: Exchange): Exchange {
    return async (request) => {
      const { origin } = request.url;
      let breaker = this.#breakers.get(origin);
      if (breaker === undefined) {
        breaker = new Breaker(this.#clock);
        this.#breakers.set(origin, breaker);
      }
      const permit = breaker.enter();
      if (permit === undefined) throw this.#resting(origin, breaker);
      if (!permit.isProbe) return this.#ask(exchange, request, permit);
      return probe({
        act: (signal) => this.#ask(exchange, { ...request, signal }, permit),
        discard: ({ body }) => discardBody(body),
        signal: request.signal,
        tooLate: () => this.#resting(origin, breaker),
      });
    };
  }

  async #ask(
    exchange: Exchange,
    request: ExchangeRequest,
    permit: BreakerPermit,
  ): Promise<Answer> {
    const resource = resourceOf(request);
    try {
      const answer = await exchange(request);
      const retryAfterMs = restOf(answer, this.#clock);
      const isThrottled = answer.status === 429 && request.kind === "token";
      if (retryAfterMs !== undefined && isThrottled) permit.rest(retryAfterMs);
      else if (answer.status >= 500 || retryAfterMs !== undefined) {
        permit.fail({ severity: "mild", retryAfterMs, resource });
      } else permit.succeed();
      return answer;
    } catch (error) {
      if (error instanceof UpstreamError && !request.signal.aborted) {
        const severity = severityOf(error);
        if (severity !== undefined) permit.fail({ severity, resource });
      }
      permit.abandon();
      throw error;
    }
  }

  #resting(origin: string, breaker: Breaker): UpstreamError {
    return new UpstreamError(
      "breaker-open",
      `${origin}: the host rests after failures`,
      {
        upstream: this.#upstream,
        origin,
        retryAfterMs: breaker.retryAfterMs,
      },
    );
  }
}

/**
 * Returns the resource that a failure is counted for: one blob says nothing about its storage, one
 * repository's token nothing about a realm. The query of a blob's URL is its signature and is ignored;
 * the query of a realm, or the body of a POST, holds the scope.
 */
function resourceOf({ kind, url, body }: ExchangeRequest): string {
  if (kind !== "token") return url.pathname;
  return body === undefined
    ? url.search
    : (new URLSearchParams(body).get("scope") ?? "");
}
