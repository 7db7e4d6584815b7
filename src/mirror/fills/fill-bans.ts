import { LRUCache } from "lru-cache";
import type { Digest } from "../../oci/digest.ts";
import type { Clock } from "../../telemetry/clock.ts";

/** After wrong bytes, ranges of that digest are refused for so long, so that the engine goes elsewhere. */
const BAN_MS = 10_000;
const MAX_BANS = 1_000;

interface Ban {
  readonly untilMs: number;
  readonly endpoints: ReadonlySet<string>;
}

/** Digests of which an upstream gave wrong bytes a moment ago. No other upstream is banned with it. */
export class FillBans {
  readonly #clock: Clock;
  readonly #bans = new LRUCache<string, Ban>({ max: MAX_BANS });

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @param endpoints those that gave the wrong bytes */
  add(upstream: string, digest: Digest, endpoints: ReadonlySet<string>): void {
    this.#bans.set(fillKey(upstream, digest), {
      untilMs: this.#clock.monotonicMs() + BAN_MS,
      endpoints,
    });
  }

  isBanned(upstream: string, digest: Digest): boolean {
    return this.#find(upstream, digest) !== undefined;
  }

  /** Endpoints of the upstream that are asked last for the digest. */
  endpoints(upstream: string, digest: Digest): ReadonlySet<string> {
    return this.#find(upstream, digest)?.endpoints ?? new Set();
  }

  #find(upstream: string, digest: Digest): Ban | undefined {
    const key = fillKey(upstream, digest);
    const ban = this.#bans.get(key);
    if (ban !== undefined && ban.untilMs <= this.#clock.monotonicMs()) {
      this.#bans.delete(key);
      return undefined;
    }
    return ban;
  }
}

/** Names a download: bytes of one upstream prove nothing of another one's. */
export function fillKey(upstream: string, digest: Digest): string {
  return `${digest} ${upstream}`;
}
