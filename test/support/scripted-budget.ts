import type { Clock } from "../../src/telemetry/clock.ts";
import { basicCredential } from "./scripted-tokens.ts";
import type { RecordedRequest, ScriptedUpstream } from "./scripted-upstream.ts";
import type { Misbehaviour } from "./wire-answer.ts";

export interface ScriptedBudgetOptions {
  readonly clock: Clock;
  /** Maximum number of pulls in the window, for each account. */
  readonly limit: number;
  readonly windowMs?: number;
}

const SIX_HOURS_MS = 6 * 3_600_000;

/**
 * Docker Hub's pull limit: a GET of a manifest counts, a HEAD does not, and the window slides. A
 * client over the limit gets 429, also for a HEAD. Every response reports the remaining pulls.
 *
 * @see https://docs.docker.com/docker-hub/usage/pulls/
 */
export class ScriptedBudget {
  readonly #options: Required<ScriptedBudgetOptions>;
  readonly #upstream: ScriptedUpstream;
  readonly #pulls = new Map<string, number[]>();
  /** Number of pulls counted, for all accounts together. */
  counted = 0;
  /** Number of requests answered with 429. */
  refused = 0;

  constructor(upstream: ScriptedUpstream, options: ScriptedBudgetOptions) {
    this.#upstream = upstream;
    this.#options = { windowMs: SIX_HOURS_MS, ...options };
    upstream.when({ kind: "manifest" }, (request) => this.#answer(request));
  }

  /** Counts pulls of other clients with the same account or address. */
  spend(count: number, account = "anonymous"): void {
    const nowMs = this.#options.clock.nowMs();
    this.#pullsOf(account).push(...Array<number>(count).fill(nowMs));
  }

  remaining(account = "anonymous"): number {
    return Math.max(0, this.#options.limit - this.#pullsOf(account).length);
  }

  #answer(request: RecordedRequest): Misbehaviour {
    const account = this.#accountOf(request.headers["authorization"]);
    const isSpent = this.remaining(account) === 0;
    if (!isSpent && request.method === "GET") {
      this.spend(1, account);
      this.counted += 1;
    }
    const window = `w=${this.#options.windowMs / 1_000}`;
    const headers = {
      "ratelimit-limit": `${this.#options.limit};${window}`,
      "ratelimit-remaining": `${this.remaining(account)};${window}`,
      "docker-ratelimit-source":
        account === "anonymous" ? "203.0.113.7" : account,
    };
    if (!isSpent) return { headers };
    this.refused += 1;
    return {
      status: 429,
      headers: { ...headers, "content-type": "application/json" },
      body: JSON.stringify({
        errors: [
          {
            code: "TOOMANYREQUESTS",
            message:
              "You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit",
          },
        ],
      }),
    };
  }

  #accountOf(authorization: string | undefined): string {
    return (
      this.#upstream.tokens?.userOf(authorization) ??
      basicCredential(authorization)?.name ??
      "anonymous"
    );
  }

  #pullsOf(account: string): number[] {
    const sinceMs = this.#options.clock.nowMs() - this.#options.windowMs;
    const pulls = (this.#pulls.get(account) ?? []).filter(
      (atMs) => atMs > sinceMs,
    );
    this.#pulls.set(account, pulls);
    return pulls;
  }
}
