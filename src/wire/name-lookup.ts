import type { LookupAddress, LookupOptions } from "node:dns";
import type { LookupFunction } from "node:net";
import { LRUCache } from "lru-cache";
import type { Clock } from "../telemetry/clock.ts";
import { Slots } from "./slots.ts";

/** Resolves all addresses of a name. */
export type ResolveName = (
  hostname: string,
) => Promise<readonly LookupAddress[]>;

export interface NameLookupOptions {
  readonly upstream: string;
  readonly clock: Clock;
  /** Absent: the system's resolver. */
  readonly resolve?: ResolveName | undefined;
}

/** The system's resolver returns no lifetimes; a short one follows changes of address. */
const KEPT_MS = 10_000;
const MAX_NAMES = 64;
/** More than the endpoints, realms and storage hosts of one upstream; a longer queue means invented names. */
const MAX_WAITING = 32;
const MAX_WAIT_MS = 18_000;

/**
 * Resolves names for one upstream.
 *
 * The system's resolver (getaddrinfo) uses hosts files, search domains and every other source that the
 * machine is configured for, so it finds what a direct pull finds. But it blocks a thread of the pool
 * until the name server answers, and libuv lets look-ups use half of the pool. Therefore an upstream
 * runs one look-up at a time, shared by all requests for the name and cached briefly: with the pool of
 * 16 threads that `main.ts` sets, seven upstreams with dead name servers leave a thread for the eighth.
 * undici's connect time-out covers the look-up, so it bounds the wait.
 */
export class NameLookup {
  readonly #clock: Clock;
  readonly #resolve: ResolveName;
  readonly #slots: Slots;
  readonly #kept = new LRUCache<
    string,
    { readonly addresses: readonly LookupAddress[]; readonly untilMs: number }
  >({ max: MAX_NAMES });
  readonly #running = new Map<string, Promise<readonly LookupAddress[]>>();

  constructor({ upstream, clock, resolve }: NameLookupOptions) {
    this.#clock = clock;
    this.#resolve = resolve ?? systemResolve;
    this.#slots = new Slots(1, upstream, MAX_WAITING);
  }

  /** @throws the error of the resolver (`ENOTFOUND`, `EAI_AGAIN`, …), or the UpstreamError of the queue */
  async addresses(hostname: string): Promise<readonly LookupAddress[]> {
    const kept = this.#kept.get(hostname);
    if (kept !== undefined && this.#clock.monotonicMs() < kept.untilMs) {
      return kept.addresses;
    }
    let running = this.#running.get(hostname);
    if (running === undefined) {
      running = this.#resolveInTurn(hostname).finally(() =>
        this.#running.delete(hostname),
      );
      this.#running.set(hostname, running);
    }
    return running;
  }

  /**
   * Returns a look-up function for `node:net`.
   *
   * @param refuse returns the reason if an address may not be dialled
   */
  asFunction(
    refuse: (hostname: string, address: string) => Error | undefined = () =>
      undefined,
  ): LookupFunction {
    const answer = async (
      hostname: string,
      options: LookupOptions,
      callback: Parameters<LookupFunction>[2],
    ): Promise<void> => {
      let found: readonly LookupAddress[];
      try {
        found = await this.addresses(hostname);
      } catch (error) {
        callback(error as NodeJS.ErrnoException, "");
        return;
      }
      let refusal: Error | undefined;
      const allowed = found.filter(({ address }) => {
        const reason = refuse(hostname, address);
        refusal ??= reason;
        return reason === undefined;
      });
      const matching = ofFamily(allowed, options);
      const [first] = matching;
      if (first === undefined) {
        callback(refusal ?? notFound(hostname), "");
      } else if (options.all === true) {
        callback(null, [...matching]);
      } else {
        callback(null, first.address, first.family);
      }
    };
    return (hostname, options, callback) => {
      void answer(hostname, options, callback);
    };
  }

  async #resolveInTurn(hostname: string): Promise<readonly LookupAddress[]> {
    const release = await this.#slots.acquire(AbortSignal.timeout(MAX_WAIT_MS));
    try {
      const addresses = await this.#resolve(hostname);
      const untilMs = this.#clock.monotonicMs() + KEPT_MS;
      this.#kept.set(hostname, { addresses, untilMs });
      return addresses;
    } finally {
      release();
    }
  }
}

async function systemResolve(
  hostname: string,
): Promise<readonly LookupAddress[]> {
  const { lookup } = await import("node:dns/promises");
  return lookup(hostname, { all: true });
}

function ofFamily(
  addresses: readonly LookupAddress[],
  { family }: LookupOptions,
): readonly LookupAddress[] {
  const wanted = family === "IPv4" ? 4 : family === "IPv6" ? 6 : family;
  return wanted === 4 || wanted === 6
    ? addresses.filter((one) => one.family === wanted)
    : addresses;
}

function notFound(hostname: string): Error {
  return Object.assign(new Error(`${hostname} has no address`), {
    code: "ENOTFOUND",
  });
}
