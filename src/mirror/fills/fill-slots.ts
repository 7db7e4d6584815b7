import { RegistryError } from "../../oci/errors.ts";
import { type Release, runOnce } from "../../wire/semaphore.ts";

/** Downloads of one upstream that may wait; clients would leave before the end of a longer queue. */
const MAX_WAITING = 1_000;

/** How long a waiting download keeps its place without a client: a refused engine retries. */
const KEPT_UNWANTED_MS = 30_000;

/** Interval at which the limits are read and room is made, while downloads wait. */
const CHECK_INTERVAL_MS = 250;

const RETRY_AFTER_MS = 2_000;

/** Above the rank of any download that a client waits for. */
const UNWANTED_RANK = 1e6;

/** A download that needs a slot. */
export interface SlotRequest {
  readonly upstream: string;
  /** Downloads of the upstream that may run at a time; 0: unlimited. */
  readonly concurrency: number;
  /** Returns true if a client waits for the download. */
  isWanted(): boolean;
  /** Returns true if it keeps its place without a client. */
  isKept?(): boolean;
}

export interface FillSlotsOptions {
  /** Returns how many downloads of all upstreams may run at a time. May change at any time. */
  limit(): number;
  /**
   * Ends a running download that can give way, if one exists.
   *
   * @param upstream the upstream whose slots are all held; undefined: the global slots are
   */
  makeRoom(upstream: string | undefined): void;
  readonly monotonicMs?: () => number;
}

interface Waiting {
  readonly request: SlotRequest;
  wantedAtMs: number;
  grant(): void;
  leave(error: unknown): void;
}

/**
 * Limits the downloads into the cache, of all upstreams together and of each. Within an upstream,
 * waiting downloads are admitted in order of arrival; the upstream that holds the fewest slots goes
 * first, and upstreams that hold equally many alternate. A download that waits for a slot of its
 * upstream holds no global slot, and a download that a client waits for goes first.
 *
 * A `Semaphore` cannot do this: both limits change while downloads wait, the order depends on which
 * clients still wait, and a waiting download can make a running one give way.
 */
export class FillSlots {
  readonly #options: FillSlotsOptions;
  readonly #monotonicMs: () => number;
  readonly #heldBy = new Map<string, number>();
  /** In the order of their last turn, the oldest first; never empty. */
  readonly #queues = new Map<string, Set<Waiting>>();
  #held = 0;
  /** The upstream that got a slot last. */
  #lastServed = "";
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(options: FillSlotsOptions) {
    this.#options = options;
    this.#monotonicMs = options.monotonicMs ?? monotonicMs;
  }

  /** The number of slots held. */
  get held(): number {
    return this.#held;
  }

  /** Takes a free slot; undefined if the download must {@link wait}. */
  take(request: SlotRequest): Release | undefined {
    if (this.#isClosed) return undefined;
    return !this.#queues.has(request.upstream) && this.#hasRoom(request)
      ? this.#hold(request.upstream)
      : undefined;
  }

  /**
   * Waits for a slot, after the earlier downloads of its upstream.
   *
   * @throws RegistryError UNAVAILABLE, 503 with `Retry-After`, if too many wait, no client has wanted the
   *   download for a while, or the mirror stops; the signal's reason
   */
  async wait(request: SlotRequest, signal?: AbortSignal): Promise<Release> {
    if (this.#isClosed) throw unavailable("the mirror is stopping");
    signal?.throwIfAborted();
    const queue = this.#queues.get(request.upstream) ?? new Set<Waiting>();
    if (queue.size >= MAX_WAITING) throw tooManyFills();
    const { promise, resolve, reject } = Promise.withResolvers<Release>();
    const onAbort = (): void => waiting.leave(signal?.reason);
    const end = (): void => {
      signal?.removeEventListener("abort", onAbort);
      queue.delete(waiting);
      if (queue.size === 0) this.#queues.delete(request.upstream);
      if (this.#queues.size === 0) clearInterval(this.#timer);
    };
    const waiting: Waiting = {
      request,
      wantedAtMs: this.#monotonicMs(),
      grant: () => {
        end();
        resolve(this.#hold(request.upstream));
      },
      leave: (error) => {
        end();
        reject(error);
      },
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    if (this.#queues.size === 0) {
      this.#timer = setInterval(() => this.#checkWaiting(), CHECK_INTERVAL_MS);
    }
    queue.add(waiting);
    this.#queues.set(request.upstream, queue);
    this.#makeRoom();
    return promise;
  }

  /**
   * Counts a request against the slots of its upstream only.
   *
   * @returns undefined if all slots of the upstream are held
   */
  takeSide(
    request: Pick<SlotRequest, "upstream" | "concurrency">,
  ): Release | undefined {
    const { upstream } = request;
    if (!this.#hasOwnRoom(request)) return undefined;
    this.#count(upstream, 1);
    return runOnce(() => {
      this.#count(upstream, -1);
      this.#admit();
    });
  }

  /** Refuses waiting and later downloads; held slots stay valid until they are released. */
  close(): void {
    this.#isClosed = true;
    for (const queue of this.#queues.values()) {
      for (const waiting of queue) {
        waiting.leave(unavailable("the mirror is stopping"));
      }
    }
  }

  #hold(upstream: string): Release {
    this.#held += 1;
    this.#lastServed = upstream;
    this.#count(upstream, 1);
    return runOnce(() => {
      this.#held -= 1;
      this.#count(upstream, -1);
      this.#admit();
    });
  }

  #count(upstream: string, change: 1 | -1): void {
    const held = (this.#heldBy.get(upstream) ?? 0) + change;
    if (held === 0) this.#heldBy.delete(upstream);
    else this.#heldBy.set(upstream, held);
  }

  #hasRoom(request: SlotRequest): boolean {
    return this.#held < this.#options.limit() && this.#hasOwnRoom(request);
  }

  #hasOwnRoom({
    upstream,
    concurrency,
  }: Pick<SlotRequest, "upstream" | "concurrency">): boolean {
    return concurrency === 0 || (this.#heldBy.get(upstream) ?? 0) < concurrency;
  }

  #admit(): void {
    for (let next = this.#next(); next !== undefined; next = this.#next()) {
      const { upstream } = next.request;
      next.grant();
      const queue = this.#queues.get(upstream);
      if (queue === undefined) continue;
      // The upstream had its turn and moves to the end.
      this.#queues.delete(upstream);
      this.#queues.set(upstream, queue);
    }
  }

  /** Prefers a download that a client waits for, of any upstream. */
  #next(): Waiting | undefined {
    if (this.#held >= this.#options.limit()) return undefined;
    let best: Waiting | undefined;
    let bestRank = Infinity;
    for (const [upstream, queue] of this.#queues) {
      const waiting = firstOf(queue);
      if (waiting === undefined || !this.#hasOwnRoom(waiting.request)) continue;
      const rank =
        (waiting.request.isWanted() ? 0 : UNWANTED_RANK) +
        2 * (this.#heldBy.get(upstream) ?? 0) +
        (upstream === this.#lastServed ? 1 : 0);
      if (rank >= bestRank) continue;
      best = waiting;
      bestRank = rank;
    }
    return best;
  }

  #checkWaiting(): void {
    const nowMs = this.#monotonicMs();
    for (const queue of this.#queues.values()) {
      for (const waiting of queue) {
        const { request } = waiting;
        const isKept = request.isWanted() || request.isKept?.() === true;
        if (isKept) waiting.wantedAtMs = nowMs;
        else if (nowMs - waiting.wantedAtMs > KEPT_UNWANTED_MS) {
          waiting.leave(tooManyFills());
        }
      }
    }
    this.#admit();
    this.#makeRoom();
  }

  #makeRoom(): void {
    const isFull = this.#held >= this.#options.limit();
    for (const [upstream, queue] of this.#queues) {
      const wanted = [...queue].find(({ request }) => request.isWanted());
      if (wanted === undefined) continue;
      if (!this.#hasOwnRoom(wanted.request)) this.#options.makeRoom(upstream);
      else if (isFull) this.#options.makeRoom(undefined);
    }
  }
}

/** Creates the refusal for a client whose download waits longer than an engine does. */
export function tooManyFills(): RegistryError {
  return unavailable("too many downloads are running");
}

function unavailable(detail: string): RegistryError {
  return new RegistryError("UNAVAILABLE", {
    status: 503,
    detail,
    retryAfterMs: RETRY_AFTER_MS,
  });
}

/** Returns the first download that a client waits for; without one, the first. */
function firstOf(queue: ReadonlySet<Waiting>): Waiting | undefined {
  let first: Waiting | undefined;
  for (const waiting of queue) {
    if (waiting.request.isWanted()) return waiting;
    first ??= waiting;
  }
  return first;
}

const monotonicMs = (): number => performance.now();
