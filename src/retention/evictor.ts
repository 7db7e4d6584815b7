import type { Reference, RepositoryKey } from "../oci/reference.ts";
import {
  type Clock,
  type Schedule,
  scheduleUnref,
} from "../telemetry/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { Victim } from "./choose-victims.ts";
import { CondemnedBlobs } from "./condemned-blobs.ts";
import type { HotManifests } from "../storage/hot-manifests.ts";
import { IndexLimit } from "./index-limit.ts";
import {
  IndexAwayError,
  IndexError,
  storedBytes,
} from "../storage/metadata-index.ts";
import type { ImageGraph } from "../storage/graph-index.ts";
import type { IndexState, UseIndex } from "../storage/metadata-index.ts";
import type { RetentionIndex, RootRow } from "../storage/root-index.ts";
import { amountOf, type RoomLimits, type Space } from "./room-limits.ts";
import type { TrackedBlobStore } from "../storage/tracked-blob-store.ts";
import { Pace, VictimSearch, type Wanted } from "./victim-search.ts";

type EvictorIndex = Pick<ImageGraph, "getNode" | "listChildren"> &
  Pick<IndexState, "totals"> &
  RetentionIndex &
  Pick<UseIndex, "settleUses">;

/** A closed list: it labels a metric. */
export type EvictionReason = "size" | "free" | "idle" | "operator" | "index";

export interface EvictedImage extends Victim {
  readonly reason: EvictionReason;
}

export interface EvictionRequest {
  /** What may be kept; absent: what the limits allow. */
  readonly toBytes?: number | undefined;
  /** Only says what would go. */
  readonly isDryRun: boolean;
}

/** Frees so much more than is asked, so that the next blob does not ask again. */
const EXTRA = 0.05;
const CHECK_EVERY_MS = 30_000;
/** A clock that was set to the wrong year must not empty the cache: at most a tenth of it a check. */
const IDLE_SHARE = 0.1;
const MIN_IDLE_VICTIMS = 16;
/** What broken downloads left may hold, beside what is stored. */
const PARTIALS_SHARE = 0.1;

export interface EvictorOptions {
  readonly index: EvictorIndex;
  readonly blobs: TrackedBlobStore;
  readonly hot?: HotManifests;
  /** Clears away what broken downloads and failed writes left; at each look and each order. */
  readonly clearLeftovers?: (partialsBytes: number) => Promise<void>;
  readonly limits: RoomLimits;
  /** What the index may take at least, however small `maxSize` is. */
  readonly leastIndexBytes?: number | undefined;
  /** Undefined where the system does not tell. */
  readonly readSpace: () => Promise<Space | undefined>;
  readonly clock: Clock;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly metrics?: Pick<
    Metrics,
    "evictedImages" | "evictedBytes" | "oldestEvictedAge" | "storageLimitBytes"
  >;
  readonly schedule?: Schedule;
}

/**
 * Keeps the cache within its limits. An image leaves as a whole: its root is dropped, then blob by
 * blob what no other root needs, the bytes before the row, so that room comes back even where the
 * index can't grow. Idle until something was stored, but for a look twice a minute.
 */
export class Evictor {
  readonly #options: EvictorOptions;
  readonly #schedule: Schedule;
  readonly #search: VictimSearch;
  readonly #indexLimit: IndexLimit;
  readonly #condemned: CondemnedBlobs;
  /** One job at a time. */
  #last: Promise<unknown> = Promise.resolve();
  #isChecking = false;
  #isStarted = false;
  #isStopped = false;
  #cancel: (() => void) | undefined;
  /** Roots whose bytes went first, because the index took nothing: it must still learn of it. */
  readonly #owed: RootRow[] = [];

  constructor(options: EvictorOptions) {
    this.#options = options;
    this.#schedule = options.schedule ?? scheduleUnref;
    this.#search = new VictimSearch(options);
    this.#indexLimit = new IndexLimit(options.index, options.leastIndexBytes);
    this.#condemned = new CondemnedBlobs(options);
  }

  /**
   * Ends what an earlier process began, then looks at the limits from time to time. Called once
   * the index knows what is stored: nothing goes by itself before.
   */
  start(): void {
    if (this.#isStopped) return;
    this.#isStarted = true;
    this.#tick();
  }

  /** Something was stored: looks at the limits once its row is in. */
  poke(): void {
    if (this.#isChecking || !this.#isStarted) return;
    this.#isChecking = true;
    setImmediate(() => {
      void this.#job(() => {
        this.#isChecking = false;
        return this.#check();
      });
    });
  }

  /** Evicts now, or says what would go; in the order in which it goes. */
  evict(request: EvictionRequest): Promise<readonly EvictedImage[]> {
    return this.#run(async () => {
      const { toBytes, isDryRun } = request;
      const found: EvictedImage[] = [];
      const take = async (asked: Asked) => {
        found.push(...(await this.#round(asked, isDryRun)));
      };
      if (!isDryRun) await this.#clear();
      if (toBytes === undefined) {
        const asked = await this.#asked();
        if (asked !== undefined) await take(asked);
        else await take(this.#idle(Infinity));
      } else {
        const totals = await this.#options.index.totals();
        const goalBytes = storedBytes(totals) - toBytes;
        if (goalBytes > 0) await take({ reason: "operator", goalBytes });
      }
      return found;
    });
  }

  /**
   * Drops an image by order, pinned or read as it may be; what is open can be read to its end.
   *
   * @returns bytes that were freed; undefined where there is no such image
   */
  remove(
    key: RepositoryKey,
    reference: Reference,
  ): Promise<number | undefined> {
    return this.#run(async () =>
      (await this.#options.index.dropRoot(key, reference))
        ? this.#condemned.purge(() => this.#isStopped)
        : undefined,
    );
  }

  /**
   * Makes room for bytes that are about to come.
   *
   * @returns whether there is room for them now
   */
  makeRoom(bytes: number): Promise<boolean> {
    return this.#run(async () => {
      const asked = await this.#asked(bytes);
      if (asked === undefined) return true;
      await this.#round(asked, false);
      return (await this.#asked(bytes)) === undefined;
    });
  }

  /** What the limits come to now; also told by a metric. */
  async limitBytes(): Promise<number> {
    const space = await this.#options.readSpace();
    const bytes = amountOf(this.#options.limits.maxSize, space, Infinity);
    if (Number.isFinite(bytes)) {
      this.#options.metrics?.storageLimitBytes.set(bytes);
    }
    return bytes;
  }

  /** Resolves when the job that runs has ended; none is begun afterwards. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancel?.();
    await this.#last;
    // A clean stop promises that the index is right.
    await this.#payOwed().catch(() => undefined);
  }

  // --- when ------------------------------------------------------------------------------------

  #tick(): void {
    this.#search.rewind();
    void this.#job(async () => {
      await this.#clear();
      await this.#check();
      if (Number.isFinite(this.#options.limits.maxIdleMs)) {
        const { tags, manifests } = await this.#options.index.totals();
        const most = Math.max(
          MIN_IDLE_VICTIMS,
          Math.ceil((tags + manifests) * IDLE_SHARE),
        );
        await this.#round(this.#idle(most), false);
      }
    });
    this.#cancel = this.#schedule(() => this.#tick(), CHECK_EVERY_MS);
  }

  /** A fault of storage or index: tried again at the next look. */
  async #job(work: () => Promise<void>): Promise<void> {
    if (this.#isStopped) return;
    try {
      await this.#run(work);
    } catch (error) {
      // There is nothing to evict from then, and the root's watch has logged it.
      if (error instanceof IndexAwayError) return;
      this.#options.log.warn({ err: error }, "eviction failed");
    }
  }

  #run<T>(work: () => Promise<T>): Promise<T> {
    const job = this.#last.then(work);
    this.#last = job.catch(() => undefined);
    return job;
  }

  async #check(): Promise<void> {
    const asked = await this.#asked();
    if (asked !== undefined) await this.#round(asked, false);
    const maxVictims = await this.#indexLimit.enforce(
      await this.limitBytes(),
      new Pace(),
    );
    if (maxVictims > 0) {
      await this.#round(
        { reason: "index", goalBytes: Infinity, maxVictims },
        false,
      );
    }
  }

  /** What the limits ask for; undefined: nothing. */
  async #asked(extraBytes = 0): Promise<Asked | undefined> {
    const { index, limits } = this.#options;
    const [space, totals] = await Promise.all([
      this.#options.readSpace(),
      index.totals(),
    ]);
    const limitBytes = amountOf(limits.maxSize, space, Infinity);
    const overSize = storedBytes(totals) + extraBytes - limitBytes;
    const overFree =
      space === undefined
        ? 0
        : amountOf(limits.minFree, space, 0) + extraBytes - space.freeBytes;
    const most = Math.max(overSize, overFree);
    if (most <= 0) return undefined;
    return {
      reason: overSize >= overFree ? "size" : "free",
      goalBytes: Math.ceil(most * (1 + EXTRA)),
    };
  }

  /** Ends what an earlier eviction or write could not, on a disk that was full or an index that was locked. */
  async #clear(): Promise<void> {
    await this.#payOwed();
    await this.#condemned.purge(() => this.#isStopped);
    await this.#options.clearLeftovers?.(
      (await this.limitBytes()) * PARTIALS_SHARE,
    );
  }

  async #payOwed(): Promise<void> {
    for (let root = this.#owed.at(-1); root; root = this.#owed.at(-1)) {
      await this.#options.index.dropRoot(root.key, root.reference);
      this.#owed.pop();
    }
  }

  #idle(maxVictims: number): Asked {
    return {
      reason: "idle",
      goalBytes: Infinity,
      usedBeforeMs:
        this.#options.clock.nowMs() - this.#options.limits.maxIdleMs,
      maxVictims,
    };
  }

  // --- what ------------------------------------------------------------------------------------

  async #round(asked: Asked, isDryRun: boolean): Promise<EvictedImage[]> {
    const pace = new Pace();
    await this.#options.index.settleUses();
    const victims = await this.#search.choose(asked, pace);
    if (isDryRun) return victims.map((v) => ({ ...v, reason: asked.reason }));
    const evicted: EvictedImage[] = [];
    for (const victim of victims) {
      if (this.#isStopped) break;
      const freedBytes = await this.#evict(victim);
      if (freedBytes === undefined) continue;
      evicted.push({ ...victim, freedBytes, reason: asked.reason });
      this.#tell(victim, freedBytes, asked.reason);
      await pace.step();
    }
    return evicted;
  }

  // --- how -------------------------------------------------------------------------------------

  /** @returns the bytes that were freed; undefined when it was used since it was chosen */
  async #evict({ root, digests }: Victim): Promise<number | undefined> {
    const { index, blobs } = this.#options;
    if (digests.some((digest) => blobs.isBusy(digest))) return undefined;
    const { key, reference, usedAtMs } = root;
    let isDropped: boolean;
    try {
      isDropped = await index.dropRoot(key, reference, usedAtMs);
    } catch (error) {
      // Whether it was used since can't be seen now; the next look asks again.
      if (error instanceof IndexError && error.isLocked) return undefined;
      // No room to write that it goes: once the bytes are gone there is.
      await this.#condemned.removeFiles(digests);
      // Used since or not: it is not whole any more.
      this.#owed.push(root);
      await this.#payOwed();
      isDropped = true;
    }
    return isDropped ? this.#condemned.purge(() => this.#isStopped) : undefined;
  }

  #tell(victim: Victim, freedBytes: number, reason: EvictionReason): void {
    const { metrics, log, clock } = this.#options;
    const { key, reference, digest, usedAtMs } = victim.root;
    const idleSeconds = Math.max(0, clock.nowMs() - usedAtMs) / 1000;
    metrics?.evictedImages.inc({ reason });
    metrics?.evictedBytes.inc(freedBytes);
    metrics?.oldestEvictedAge.set(idleSeconds);
    log.info(
      {
        upstream: key.upstream,
        repository: key.repository,
        reference: reference.kind === "tag" ? reference.tag : digest,
        reason,
        sizeBytes: freedBytes,
        idleSeconds: Math.round(idleSeconds),
      },
      "evicted",
    );
  }
}

interface Asked extends Wanted {
  readonly reason: EvictionReason;
}
