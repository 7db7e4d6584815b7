import { LRUCache } from "lru-cache";
import type { Clock } from "../telemetry/clock.ts";
import { discardBody } from "../wire/body.ts";
import { Breaker, type BreakerPermit } from "./breaker.ts";
import { UpstreamError } from "../wire/errors.ts";
import type { Answer, Exchange, ExchangeRequest } from "../wire/exchange.ts";
import { severityOf } from "../wire/faults.ts";
import { probe } from "./probing.ts";
import { restOf } from "../wire/retry-after.ts";

/** Storage behind redirects has many names; the breakers of those not met lately are forgotten. */
const MAX_ORIGINS = 64;

/**
 * Servers that are no endpoint: token realms and targets of redirects. Each origin has a breaker of
 * its own, so that a dead one neither holds requests up nor is mistaken for a dead endpoint.
 */
export class ForeignOrigins {
  readonly #upstream: string;
  readonly #clock: Clock;
  readonly #breakers = new LRUCache<string, Breaker>({ max: MAX_ORIGINS });

  constructor(upstream: string, clock: Clock) {
    this.#upstream = upstream;
    this.#clock = clock;
  }

  /** The exchange with a breaker for each origin, shared by all that are guarded here. */
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
    return new UpstreamError("breaker-open", `${origin}: rests`, {
      upstream: this.#upstream,
      origin,
      retryAfterMs: breaker.retryAfterMs,
    });
  }
}

/**
 * One blob says nothing of storage, and one repository's token nothing of a realm. The query of a
 * blob's URL holds the signature, that of a realm's the scope; a POST has the scope in its body.
 */
function resourceOf({ kind, url, body }: ExchangeRequest): string {
  if (kind !== "token") return url.pathname;
  return body === undefined
    ? url.search
    : (new URLSearchParams(body).get("scope") ?? "");
}
