import { setImmediate as nextTurn } from "node:timers/promises";
import type { Digest } from "../oci/digest.ts";
import type { Reference } from "../oci/reference.ts";
import type { Clock } from "../telemetry/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { type Schedule, scheduleUnref } from "./access-times.ts";
import {
  type Candidate,
  type CandidateNode,
  chooseVictims,
  endsWithRoot,
  isHalf,
  type Released,
  type Victim,
} from "./choose-victims.ts";
import type { HotManifests } from "./hot-manifests.ts";
import type { MetadataIndex, RepositoryKey } from "./metadata-index.ts";
import type { RootCursor, RootRow } from "./root-index.ts";
import type { TrackedBlobStore } from "./tracked-blob-store.ts";

/** Bytes, or a share of the file system as in 0.8. */
export type Amount = { readonly bytes: number } | { readonly share: number };

export interface RoomLimits {
  readonly maxSize: Amount;
  readonly minFree: Amount;
  /** Infinity: never. */
  readonly maxIdleMs: number;
  /** Whether the root is covered by a pattern of those that never go. */
  readonly isKept: (root: RootRow) => boolean;
}

export interface Space {
  readonly totalBytes: number;
  readonly freeBytes: number;
}

/** A closed list: it labels a metric. */
export type EvictionReason = "size" | "free" | "idle" | "operator";

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
/** An image that is half there and was asked for so lately is being pulled, though no blob of it may be open now. */
const ARRIVING_MS = 60_000;
/** What one step may take of the event loop's time before others get their turn. */
const STEP_MS = 2;
const ROOTS_AT_ONCE = 16;
/** Files removed side by side, and rows dropped in one transaction. */
const BLOBS_AT_ONCE = 8;
/** A clock that was set to the wrong year must not empty the cache: at most a tenth of it a check. */
const IDLE_SHARE = 0.1;
const MIN_IDLE_VICTIMS = 16;
/** What broken downloads left may hold, beside what is stored. */
const PARTIALS_SHARE = 0.1;

export interface EvictorOptions {
  readonly index: MetadataIndex;
  readonly blobs: TrackedBlobStore;
  readonly hot?: HotManifests;
  /** Clears away what broken downloads and failed writes left; at each look and each order. */
  readonly clearLeftovers?: (partialsBytes: number) => Promise<void>;
  readonly limits: RoomLimits;
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
  /** One job at a time. */
  #last: Promise<unknown> = Promise.resolve();
  #isChecking = false;
  #isStarted = false;
  #isStopped = false;
  #cancel: (() => void) | undefined;
  /** Roots whose bytes went first, because the index took nothing: it must still learn of it. */
  readonly #owed: RootRow[] = [];
  /** Every root before it is kept by a pattern; forgotten at each timed check. */
  #keptUntil: RootCursor | undefined;

  constructor(options: EvictorOptions) {
    this.#options = options;
    this.#schedule = options.schedule ?? scheduleUnref;
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
        const { blobBytes } = await this.#options.index.totals();
        const goalBytes = blobBytes - toBytes;
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
        ? this.#purge()
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
    this.#keptUntil = undefined;
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
  }

  /** What the limits ask for; undefined: nothing. */
  async #asked(extraBytes = 0): Promise<Asked | undefined> {
    const { index, limits } = this.#options;
    const [space, totals] = await Promise.all([
      this.#options.readSpace(),
      index.totals(),
    ]);
    const limitBytes = amountOf(limits.maxSize, space, Infinity);
    const overSize = totals.blobBytes + extraBytes - limitBytes;
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
    await this.#purge();
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
    const victims = await this.#choose(asked, pace);
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

  async #choose(asked: Asked, pace: Pace): Promise<Victim[]> {
    const { index, blobs, limits } = this.#options;
    const { usedBeforeMs = Infinity, maxVictims = Infinity } = asked;
    const released: Released = new Map();
    const victims: Victim[] = [];
    const arrivingAfterMs = this.#options.clock.nowMs() - ARRIVING_MS;
    let goalBytes = asked.goalBytes;
    let after = this.#keptUntil;
    let isAllKept = true;
    for (;;) {
      const { roots, next } = await index.listOldestRoots(ROOTS_AT_ONCE, after);
      for (const root of roots) {
        if (root.usedAtMs >= usedBeforeMs) return victims;
        if (limits.isKept(root)) continue;
        isAllKept = false;
        await pace.step();
        const candidate = await this.#readCandidate(root, released, pace);
        if (root.usedAtMs > arrivingAfterMs && isHalf(candidate)) continue;
        const [victim] = chooseVictims(
          [candidate],
          {
            goalBytes,
            isKept: () => false,
            isBusy: (digest) => blobs.isBusy(digest),
          },
          released,
        );
        if (victim === undefined) continue;
        victims.push(victim);
        goalBytes -= victim.freedBytes;
        if (goalBytes <= 0 || victims.length >= maxVictims) return victims;
      }
      if (next === undefined) return victims;
      if (isAllKept) this.#keptUntil = next;
      after = next;
      await pace.step();
    }
  }

  /** Reads a root's graph, as far as it ends with the root. */
  async #readCandidate(
    root: RootRow,
    released: Released,
    pace: Pace,
  ): Promise<Candidate> {
    const { index } = this.#options;
    const graph = new Map<Digest, CandidateNode>();
    const top = await index.getNode(root.digest);
    if (top === undefined) return { root, graph };
    graph.set(root.digest, { ...top, children: [] });
    const waiting = endsWithRoot(top, released) ? [top] : [];
    for (;;) {
      const node = waiting.pop();
      if (node === undefined) return { root, graph };
      if (!node.isManifest) continue;
      const children: Digest[] = [];
      let after: number | undefined;
      do {
        const page = await index.listChildren(node.digest, after);
        for (const child of page.nodes) {
          children.push(child.digest);
          if (graph.has(child.digest)) continue;
          graph.set(child.digest, { ...child, children: [] });
          if (child.sizeBytes !== undefined) waiting.push(child);
        }
        after = page.next;
        await pace.step();
      } while (after !== undefined);
      graph.set(node.digest, { ...node, children });
    }
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
    } catch {
      // No room to write that it goes: once the bytes are gone there is.
      await this.#removeFiles(digests);
      // Used since or not: it is not whole any more.
      this.#owed.push(root);
      await this.#payOwed();
      isDropped = true;
    }
    return isDropped ? this.#purge() : undefined;
  }

  /** Removes what is condemned and idle, level by level. @returns bytes that were freed */
  async #purge(): Promise<number> {
    const { index, blobs, hot, log } = this.#options;
    const except = new Set<Digest>();
    let freedBytes = 0;
    for (;;) {
      const found = await index.listCondemned(BLOBS_AT_ONCE, except);
      if (found.length === 0 || this.#isStopped) return freedBytes;
      const claim = blobs.claim(found.map(({ digest }) => digest));
      try {
        const gone: Digest[] = [];
        await Promise.all(
          found.map(async ({ digest, sizeBytes }) => {
            if (!claim.digests.includes(digest)) {
              except.add(digest);
              return;
            }
            hot?.delete(digest);
            try {
              await blobs.remove(digest);
              gone.push(digest);
              freedBytes += sizeBytes;
            } catch (error) {
              except.add(digest);
              log.warn({ err: error, digest }, "a blob could not be removed");
            }
          }),
        );
        await index.forgetCondemned(gone);
      } finally {
        claim.release();
      }
      await nextTurn();
    }
  }

  async #removeFiles(digests: readonly Digest[]): Promise<void> {
    const { blobs, hot } = this.#options;
    const claim = blobs.claim(digests);
    try {
      for (const digest of claim.digests) {
        hot?.delete(digest);
        await blobs.remove(digest);
      }
    } finally {
      claim.release();
    }
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

interface Asked {
  readonly reason: EvictionReason;
  readonly goalBytes: number;
  readonly usedBeforeMs?: number;
  readonly maxVictims?: number;
}

/** Gives others their turn before a step has taken too long. */
class Pace {
  #sinceMs = performance.now();

  async step(): Promise<void> {
    if (performance.now() - this.#sinceMs < STEP_MS) return;
    await nextTurn();
    this.#sinceMs = performance.now();
  }
}

function amountOf(
  amount: Amount,
  space: Space | undefined,
  unknown: number,
): number {
  if ("bytes" in amount) return amount.bytes;
  return space === undefined
    ? unknown
    : Math.floor(space.totalBytes * amount.share);
}
