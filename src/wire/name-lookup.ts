import type { LookupAddress, LookupOptions } from "node:dns";
import type { LookupFunction } from "node:net";
import { LRUCache } from "lru-cache";
import type { Clock } from "../telemetry/clock.ts";
import { Slots } from "./slots.ts";

/** All addresses of a name. */
export type ResolveName = (
  hostname: string,
) => Promise<readonly LookupAddress[]>;

export interface NameLookupOptions {
  readonly upstream: string;
  readonly clock: Clock;
  /** The system's resolver where absent. */
  readonly resolve?: ResolveName | undefined;
}

/** The system's resolver tells no lifetimes; so short a one follows any move. */
const KEPT_MS = 10_000;
const MAX_NAMES = 64;
/** Endpoints, realms and storage of one upstream; beyond it somebody makes names up. */
const MAX_WAITING = 32;
const MAX_WAIT_MS = 18_000;

/**
 * Names to addresses, for one upstream.
 *
 * The system's resolver (getaddrinfo) knows hosts files, search domains and every source that the
 * machine is set up for, so what a direct pull finds is found here too; but it blocks a thread of
 * the pool for as long as a name server keeps silent, and libuv gives it half of the pool. So an
 * upstream has one look-up at a time, shared by all who ask for the name and kept for a moment: with
 * the pool of 16 threads that `main.ts` asks for, seven upstreams with dead name servers leave the
 * eighth its own. Nobody waits for a look-up longer than for a connection: undici's connect
 * time-out runs meanwhile.
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

  /** @throws what the resolver throws (`ENOTFOUND`, `EAI_AGAIN`, …), or UpstreamError in the queue */
  async addresses(hostname: string): Promise<readonly LookupAddress[]> {
    const kept = this.#kept.get(hostname);
    if (kept !== undefined && this.#clock.monotonicMs() < kept.untilMs) {
      return kept.addresses;
    }
    let running = this.#running.get(hostname);
    if (running === undefined) {
      running = this.#ask(hostname).finally(() =>
        this.#running.delete(hostname),
      );
      this.#running.set(hostname, running);
    }
    return running;
  }

  /**
   * As `node:net` takes it.
   *
   * @param refuse says of an address why it may not be dialled
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
        const flaw = refuse(hostname, address);
        refusal ??= flaw;
        return flaw === undefined;
      });
      const fitting = ofFamily(allowed, options);
      const [first] = fitting;
      if (first === undefined) {
        callback(refusal ?? notFound(hostname), "");
      } else if (options.all === true) {
        callback(null, [...fitting]);
      } else {
        callback(null, first.address, first.family);
      }
    };
    return (hostname, options, callback) => {
      void answer(hostname, options, callback);
    };
  }

  async #ask(hostname: string): Promise<readonly LookupAddress[]> {
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
