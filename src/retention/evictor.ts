import type { Reference, RepositoryKey } from "../oci/reference.ts";
import { type Schedule, scheduleUnref } from "../telemetry/clock.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { Victim } from "./choose-victims.ts";
import { CondemnedBlobs, type Purged } from "./condemned-blobs.ts";
import {
  type EvictionReason,
  EvictionReport,
  type EvictionReportOptions,
} from "./eviction-report.ts";
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
import { amountOf, type RoomLimits } from "./room-limits.ts";
import type { StorageSpace } from "../storage/storage.ts";
import type { TrackedBlobStore } from "../storage/tracked-blob-store.ts";
import { type EvictionTarget, Pace, VictimSearch } from "./victim-search.ts";

type EvictorIndex = Pick<ImageGraph, "getNode" | "listChildren"> &
  Pick<IndexState, "totals"> &
  RetentionIndex &
  Pick<UseIndex, "settleUses">;

export interface EvictedImage extends Victim {
  readonly reason: EvictionReason;
}

export interface EvictionRequest {
  /** Bytes that may stay stored; absent: what the limits allow. */
  readonly toBytes?: number | undefined;
  /** Whether to report the victims without evicting them. */
  readonly isDryRun: boolean;
}

/** The additional share to free, so that the next blob does not need another eviction. */
const EXTRA = 0.05;
const CHECK_EVERY_MS = 30_000;
/** A clock set to the wrong year must not empty the cache: one check evicts at most a tenth of it. */
const IDLE_SHARE = 0.1;
const MIN_IDLE_VICTIMS = 16;
/** The share of the limit that abandoned partials may use in addition to stored blobs. */
const PARTIALS_SHARE = 0.1;
/** How long a collection's removal runs before other jobs get a turn. */
const PURGE_SLICE_MS = 50;

export interface EvictorOptions extends Omit<EvictionReportOptions, "metrics"> {
  readonly index: EvictorIndex;
  readonly blobs: TrackedBlobStore;
  readonly hot?: HotManifests;
  /** Cleans up after interrupted downloads and failed writes; called by each check and each order. */
  readonly clearLeftovers?: (partialsBytes: number) => Promise<void>;
  readonly limits: RoomLimits;
  /** The least bound of the index, for any `maxSize`. */
  readonly leastIndexBytes?: number | undefined;
  /** Returns undefined if the system does not report it. */
  readonly readSpace: () => Promise<StorageSpace | undefined>;
  readonly metrics?: EvictionReportOptions["metrics"] &
    Pick<
      Metrics,
      "storageLimitBytes" | "diskBytes" | "diskFreeBytes" | "collectedBytes"
    >;
  readonly schedule?: Schedule;
}

/**
 * Keeps the cache within its limits. An image is evicted as a whole: its root is dropped, then each
 * blob that no other root needs, the bytes before the row, so that space is freed even if the index
 * can't grow. Idle until a blob is stored, except for a check twice a minute.
 */
export class Evictor {
  readonly #options: EvictorOptions;
  readonly #schedule: Schedule;
  readonly #search: VictimSearch;
  readonly #indexLimit: IndexLimit;
  readonly #condemned: CondemnedBlobs;
  readonly #report: EvictionReport;
  /** The last job; jobs run one at a time. */
  #last: Promise<unknown> = Promise.resolve();
  #isChecking = false;
  #isStarted = false;
  #isStopped = false;
  #cancel: (() => void) | undefined;
  /** Roots whose bytes were removed while the index could not be written, and whose rows remain. */
  readonly #pendingDrops: RootRow[] = [];

  constructor(options: EvictorOptions) {
    this.#options = options;
    this.#schedule = options.schedule ?? scheduleUnref;
    this.#search = new VictimSearch(options);
    this.#indexLimit = new IndexLimit(options.index, options.leastIndexBytes);
    this.#condemned = new CondemnedBlobs(options);
    this.#report = new EvictionReport(options);
  }

  /**
   * Completes what an earlier process began, then checks the limits regularly. Called when the index
   * is complete; nothing is evicted automatically before.
   */
  start(): void {
    if (this.#isStopped) return;
    this.#isStarted = true;
    this.#tick();
  }

  /** Checks the limits after a blob was stored, once its row is written. */
  notifyStored(): void {
    if (this.#isChecking || !this.#isStarted) return;
    this.#isChecking = true;
    setImmediate(() => {
      void this.#job(() => {
        this.#isChecking = false;
        return this.#check();
      });
    });
  }

  /** Evicts now, or reports what would be evicted, in order. */
  evict(request: EvictionRequest): Promise<readonly EvictedImage[]> {
    return this.#run(async () => {
      const { toBytes, isDryRun } = request;
      const found: EvictedImage[] = [];
      const take = async (target: Target) => {
        found.push(...(await this.#round(target, isDryRun)));
      };
      if (!isDryRun) await this.#clear();
      if (toBytes === undefined) {
        const target = await this.#excess();
        if (target !== undefined) await take(target);
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
   * Drops an image on an operator's order, even if it is pinned or being read. Open blobs stay readable.
   *
   * @returns the bytes that were freed; undefined if the image is not cached
   */
  remove(
    key: RepositoryKey,
    reference: Reference,
  ): Promise<number | undefined> {
    return this.#run(async () =>
      (await this.#options.index.dropRoot(key, reference))
        ? (await this.#purge()).bytes
        : undefined,
    );
  }

  /**
   * Removes blobs that are condemned, for a bounded time; the caller repeats it until its end. Runs
   * between evictions, so that two removals never run concurrently.
   */
  purgeCondemned(): Promise<Purged> {
    return this.#run(() => {
      const untilMs = performance.now() + PURGE_SLICE_MS;
      return this.#collect(() => performance.now() > untilMs);
    });
  }

  /**
   * Makes room for bytes that are about to be stored.
   *
   * @returns whether they fit now
   */
  makeRoom(bytes: number): Promise<boolean> {
    return this.#run(async () => {
      const target = await this.#excess(bytes);
      if (target === undefined) return true;
      await this.#round(target, false);
      return (await this.#excess(bytes)) === undefined;
    });
  }

  /** Returns the current limit, and sets its metric and those of the disk. */
  async limitBytes(): Promise<number> {
    const { limits, metrics } = this.#options;
    const space = await this.#options.readSpace();
    if (space !== undefined) {
      metrics?.diskBytes.set(space.totalBytes);
      metrics?.diskFreeBytes.set(space.freeBytes);
    }
    const bytes = amountOf(limits.maxSize, space, Infinity);
    if (Number.isFinite(bytes)) metrics?.storageLimitBytes.set(bytes);
    return bytes;
  }

  /** Resolves when the running job has ended; no further job starts. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancel?.();
    await this.#last;
    // A clean stop promises a correct index.
    await this.#dropPending().catch(() => undefined);
  }

  // --- schedule ------------------------------------------------------------------------------------

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

  /** Logs faults of storage and index; the next check retries. */
  async #job(work: () => Promise<void>): Promise<void> {
    if (this.#isStopped) return;
    try {
      await this.#run(work);
    } catch (error) {
      // There is nothing to evict while the root is absent, which its watch has logged.
      if (error instanceof IndexAwayError) return;
      this.#options.log.warn(
        { err: error },
        "the eviction failed and is retried",
      );
    }
  }

  #run<T>(work: () => Promise<T>): Promise<T> {
    const job = this.#last.then(work);
    this.#last = job.catch(() => undefined);
    return job;
  }

  #purge(): Promise<Purged> {
    return this.#condemned.purge(() => this.#isStopped);
  }

  /** Removes condemned blobs that no victim of an eviction needed. */
  async #collect(isOver: () => boolean): Promise<Purged> {
    const purged = await this.#condemned.purge(
      () => this.#isStopped || isOver(),
    );
    if (purged.bytes > 0)
      this.#options.metrics?.collectedBytes.inc(purged.bytes);
    return purged;
  }

  async #check(): Promise<void> {
    const target = await this.#excess();
    const victims =
      target === undefined ? [] : await this.#round(target, false);
    this.#report.exhaustion(target, victims.length);
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

  /** Returns what to free to get within the limits; undefined if nothing. */
  async #excess(extraBytes = 0): Promise<Target | undefined> {
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

  /** Completes evictions and writes that a full disk or a locked index interrupted. */
  async #clear(): Promise<void> {
    await this.#dropPending();
    await this.#collect(() => false);
    await this.#options.clearLeftovers?.(
      (await this.limitBytes()) * PARTIALS_SHARE,
    );
  }

  async #dropPending(): Promise<void> {
    for (
      let root = this.#pendingDrops.at(-1);
      root;
      root = this.#pendingDrops.at(-1)
    ) {
      await this.#options.index.dropRoot(root.key, root.reference);
      this.#pendingDrops.pop();
    }
  }

  #idle(maxVictims: number): Target {
    return {
      reason: "idle",
      goalBytes: Infinity,
      usedBeforeMs:
        this.#options.clock.nowMs() - this.#options.limits.maxIdleMs,
      maxVictims,
    };
  }

  // --- selection ------------------------------------------------------------------------------------

  async #round(target: Target, isDryRun: boolean): Promise<EvictedImage[]> {
    const pace = new Pace();
    await this.#options.index.settleUses();
    const victims = await this.#search.choose(target, pace);
    if (isDryRun) return victims.map((v) => ({ ...v, reason: target.reason }));
    const evicted: EvictedImage[] = [];
    for (const victim of victims) {
      if (this.#isStopped) break;
      const freedBytes = await this.#evict(victim);
      if (freedBytes === undefined) continue;
      evicted.push({ ...victim, freedBytes, reason: target.reason });
      this.#report.eviction(victim, freedBytes, target.reason);
      await pace.step();
    }
    return evicted;
  }

  // --- removal --------------------------------------------------------------------------------

  /** @returns the bytes that were freed; undefined if the root was used after it was chosen */
  async #evict(victim: Victim): Promise<number | undefined> {
    const { root, digests } = victim;
    const { index, blobs, metrics } = this.#options;
    if (digests.some((digest) => blobs.isBusy(digest))) return undefined;
    const { key, reference, usedAtMs } = root;
    let isDropped: boolean;
    try {
      isDropped = await index.dropRoot(key, reference, usedAtMs);
    } catch (error) {
      // Whether it was used meanwhile is unknown now; the next check decides.
      if (error instanceof IndexError && error.isLocked) return undefined;
      // The disk has no room for the change of the index until the bytes are removed.
      await this.#condemned.removeFiles(digests);
      // Dropped even if it was used meanwhile, because it is no longer complete.
      this.#pendingDrops.push(root);
      await this.#dropPending();
      isDropped = true;
    }
    if (!isDropped) return undefined;
    const { bytes } = await this.#purge();
    // The others were condemned by the collection meanwhile.
    const collectedBytes = Math.max(0, bytes - victim.freedBytes);
    if (collectedBytes > 0) metrics?.collectedBytes.inc(collectedBytes);
    return bytes - collectedBytes;
  }
}

interface Target extends EvictionTarget {
  readonly reason: EvictionReason;
}
