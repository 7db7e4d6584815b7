import { LRUCache } from "lru-cache";
import type { Clock } from "../telemetry/clock.ts";
import { Breaker } from "./breaker.ts";
import { UpstreamError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { isSlowAnswer, severityOf } from "./faults.ts";
import { restOf } from "./retry-after.ts";

/** Storage behind redirects has many names; the breakers of those not met lately are forgotten. */
const MAX_ORIGINS = 64;

/**
 * Wraps an exchange for servers that are no endpoint: token realms and targets of redirects. Each
 * origin has a breaker of its own, so that a dead one neither holds requests up nor is mistaken
 * for a dead endpoint.
 */
export function guardForeignOrigins(
  exchange: Exchange,
  upstream: string,
  clock: Clock,
): Exchange {
  const breakers = new LRUCache<string, Breaker>({ max: MAX_ORIGINS });

  return async (request) => {
    const { origin } = request.url;
    let breaker = breakers.get(origin);
    if (breaker === undefined) {
      breaker = new Breaker(clock);
      breakers.set(origin, breaker);
    }
    const permit = breaker.enter();
    if (permit === undefined) {
      throw new UpstreamError("breaker-open", `${origin}: rests`, {
        upstream,
        origin,
        retryAfterMs: breaker.retryAfterMs,
      });
    }
    try {
      const answer = await exchange(request);
      const restMs = restOf(answer, clock);
      if (restMs !== undefined) permit.rest(restMs);
      else if (answer.status >= 500) permit.fail("mild");
      else permit.succeed();
      return answer;
    } catch (error) {
      if (error instanceof UpstreamError && !request.signal.aborted) {
        const severity = severityOf(error);
        if (severity !== undefined) {
          permit.fail(isSlowAnswer(error) ? "mild" : severity);
        }
      }
      permit.abandon();
      throw error;
    }
  };
}
