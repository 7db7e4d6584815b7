import { LRUCache } from "lru-cache";
import type { Digest } from "../../oci/digest.ts";
import type { Clock } from "../../telemetry/clock.ts";

/** How long ranges of a digest are refused after wrong bytes, so that the engine uses another registry. */
const BAN_MS = 10_000;
const MAX_BANS = 1_000;

interface Ban {
  readonly untilMs: number;
  readonly endpoints: ReadonlySet<string>;
}

/** Digests for which an upstream recently sent wrong bytes. Other upstreams are not affected. */
export class FillBans {
  readonly #clock: Clock;
  readonly #bans = new LRUCache<string, Ban>({ max: MAX_BANS });

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @param endpoints the endpoints that sent the wrong bytes */
  add(upstream: string, digest: Digest, endpoints: ReadonlySet<string>): void {
    this.#bans.set(fillKey(upstream, digest), {
      untilMs: this.#clock.monotonicMs() + BAN_MS,
      endpoints,
    });
  }

  isBanned(upstream: string, digest: Digest): boolean {
    return this.#find(upstream, digest) !== undefined;
  }

  /** Returns the endpoints of the upstream that are tried last for the digest. */
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

/** Returns the key of a download, which includes the upstream: its bytes prove nothing about those of another. */
export function fillKey(upstream: string, digest: Digest): string {
  return `${digest} ${upstream}`;
}
