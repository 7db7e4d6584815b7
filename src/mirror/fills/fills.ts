import type { BlobStore } from "../../storage/blob-store.ts";
import type { BlobRecords, FillIntents } from "../../storage/blob-index.ts";
import type { ImageGraph } from "../../storage/graph-index.ts";
import type { Room } from "../../retention/room.ts";
import {
  type Digest,
  digestAlgorithm,
  possibleSize,
} from "../../oci/digest.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import { UpstreamError } from "../../wire/errors.ts";
import type { Release } from "../../wire/semaphore.ts";
import { BlobFill } from "./blob-fill.ts";
import { FillBans, fillKey } from "./fill-bans.ts";
import type { FillEnd } from "./fill-options.ts";
import { publishVerified } from "./fill-publication.ts";
import { FillSlots, tooManyFills } from "./fill-slots.ts";
import { FillStorages } from "./fill-storages.ts";
import { windowBytesFor } from "./fill-windows.ts";
import { type MirroredUpstream } from "../mirrored-upstream.ts";
import {
  type Fill,
  isRead,
  type JoinedFill,
  type RunningFill,
} from "./running-fill.ts";
import { withinPatience } from "../answer-deadline.ts";
import { ANSWER_DEADLINE_MS } from "../../wire/deadline.ts";
import type { RepositoryKey } from "../../oci/reference.ts";

type FillsIndex = Pick<BlobRecords, "getBlob" | "recordBlob"> &
  Pick<FillIntents, "beginFill" | "dropIntent"> &
  Pick<ImageGraph, "findDescriptor">;

const MAX_SIDE_RANGES = 2;

/**
 * All fills that run: one for each (upstream, digest), however many clients ask. Two upstreams that
 * fetch one digest are two downloads: what one of them sends, late or wrong, is not the other's.
 */
export class Fills {
  readonly #store: BlobStore;
  readonly #index: FillsIndex;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #metrics: Metrics;
  readonly #running = new Map<string, RunningFill>();
  readonly #bans: FillBans;
  readonly #slots: FillSlots;
  readonly #storages: FillStorages;
  #windowBytes = windowBytesFor(1);
  #isClosing = false;

  constructor(options: {
    store: BlobStore;
    index: FillsIndex;
    clock: Clock;
    log: Logger;
    metrics: Metrics;
    /** Absent: every fill has room until the disk says otherwise. */
    room?: Pick<Room, "reserve" | "isShort"> | undefined;
    /** How many run at once, of all upstreams. May change at any time. */
    maxFills: () => number;
    /** No other upstream can have brought what lies in the storage. May change at any time. */
    isSoleUpstream: () => boolean;
  }) {
    const { store, index, clock, log, metrics, isSoleUpstream } = options;
    this.#store = store;
    this.#index = index;
    this.#clock = clock;
    this.#log = log;
    this.#metrics = metrics;
    this.#bans = new FillBans(clock);
    this.#slots = new FillSlots({
      limit: options.maxFills,
      makeRoom: (upstream) => this.#makeRoom(upstream),
      monotonicMs: () => clock.monotonicMs(),
    });
    this.#storages = new FillStorages({
      store,
      index,
      clock,
      log,
      metrics,
      room: options.room,
      isSoleUpstream,
      stopUnread: () => this.#stopUnread(),
    });
  }

  get(upstream: string, digest: Digest): Fill | undefined {
    return this.#running.get(fillKey(upstream, digest));
  }

  /** Wrong bytes came from this upstream for this digest a moment ago. */
  isBanned(upstream: string, digest: Digest): boolean {
    return this.#bans.isBanned(upstream, digest);
  }

  /** The fill of that digest from that upstream, started when none runs. */
  start(upstream: MirroredUpstream, key: RepositoryKey, digest: Digest): Fill {
    const name = fillKey(key.upstream, digest);
    const running = this.#running.get(name);
    if (running !== undefined) return running;
    const { promise: opened, resolve } = Promise.withResolvers<BlobFill>();
    const fill: RunningFill = {
      upstream: key.upstream,
      concurrency: upstream.concurrency,
      client: upstream.client,
      metricLabel: upstream.metricLabel,
      key,
      digest,
      opened,
      ended: opened.then(
        (blob) => this.#watch(fill, blob),
        () => this.#forget(fill),
      ),
      blob: undefined,
      release: undefined,
      isQueued: false,
      isReserving: false,
      reservation: undefined,
      waiting: 0,
      sideRanges: 0,
      storedEnd: () => fill.blob?.storedEnd ?? 0,
      isWanted: () => isRead(fill),
      openReader: (patienceMs) => this.#openReader(fill, patienceMs),
      takeSideRange: () => this.#takeSideRange(fill),
    };
    this.#running.set(name, fill);
    resolve(this.#open(fill));
    this.#metrics.fillsInProgress.inc({ upstream: fill.metricLabel });
    return fill;
  }

  /** Whether a fill runs that a client reads. */
  get hasReaders(): boolean {
    return [...this.#running.values()].some(isRead);
  }

  /** Ends every fill and keeps what came; no fill is started afterwards. */
  async close(): Promise<void> {
    this.#isClosing = true;
    this.#slots.close();
    await Promise.all(
      [...this.#running.values()].map(async ({ opened }) => {
        const blob = await opened.catch(() => undefined);
        await blob?.suspend();
      }),
    );
  }

  async #openReader(
    fill: RunningFill,
    patienceMs: number,
  ): Promise<JoinedFill | undefined> {
    // Of the wait for a slot the client hears before its patience ends, and no upstream is blamed.
    const bounded = fill.isQueued
      ? withinPatience(patienceMs, tooManyFills)
      : undefined;
    fill.waiting++;
    try {
      const blob = await (bounded?.(fill.opened) ?? fill.opened);
      if (!blob.isJoinable) return undefined;
      return {
        body: blob.openReader(),
        head: bounded?.(blob.head) ?? blob.head,
        get isStored() {
          return blob.isStored;
        },
        get receivedBytes() {
          return blob.receivedBytes;
        },
        verifiedSize: () => blob.verifiedSize(),
      };
    } finally {
      fill.waiting--;
    }
  }

  #takeSideRange(fill: RunningFill): Release | undefined {
    if (fill.sideRanges >= MAX_SIDE_RANGES) return undefined;
    const release = this.#slots.takeBeside(fill);
    if (release === undefined) return undefined;
    fill.sideRanges++;
    return () => {
      fill.sideRanges--;
      release();
    };
  }

  async #open(fill: RunningFill): Promise<BlobFill> {
    fill.release = this.#slots.take(fill);
    try {
      if (fill.release === undefined) {
        fill.isQueued = true;
        fill.release = await this.#slots.wait(fill);
        fill.isQueued = false;
      }
      this.#shareWindows();
      const blob = await this.#openBlob(fill);
      void blob.ended.finally(() => this.#release(fill));
      return blob;
    } catch (error) {
      this.#release(fill);
      throw error;
    }
  }

  #release(fill: RunningFill): void {
    fill.release?.();
    this.#shareWindows();
  }

  async #openBlob(fill: RunningFill): Promise<BlobFill> {
    const { key, digest } = fill;
    const descriptor = await this.#index
      .findDescriptor(key, digest)
      .catch(() => undefined);
    const expectedBytes = possibleSize(digest, descriptor?.sizeBytes);
    const algorithm = digestAlgorithm(digest);
    const storage = await this.#storages.open(fill, expectedBytes);
    const blob: BlobFill = new BlobFill({
      digest,
      expectedBytes,
      windowBytes: () => this.#windowBytes,
      avoid: this.#bans.endpoints(key.upstream, digest),
      headersTimeoutMs: ANSWER_DEADLINE_MS,
      monotonicMs: () => this.#clock.monotonicMs(),
      storage,
      open: async (options) => {
        const body = await fill.client.openBlob(
          key.repository,
          digest,
          options,
        );
        if (fill.reservation === undefined && blob.isStored) {
          fill.isReserving = true;
          await this.#storages
            .reserve(fill, body.sizeBytes)
            .catch((error: unknown) => {
              blob.passThrough(error);
              // The bytes would reach neither the storage nor a client.
              if (!isRead(fill)) void blob.suspend();
            });
          fill.isReserving = false;
        }
        return body;
      },
      createHash: () => this.#store.createHash(algorithm, expectedBytes),
      onVerified: (sizeBytes, publish) =>
        publishVerified(
          { store: this.#store, index: this.#index, clock: this.#clock },
          key,
          { digest, sizeBytes },
          publish,
        ),
      giveWay: (signal) => this.#giveWay(fill, signal),
      onResume: () => {
        this.#metrics.upstreamResumes.inc({ upstream: fill.metricLabel });
      },
      onDegraded: (error) => this.#storages.onFault(error),
    });
    if (this.#isClosing) void blob.suspend();
    return blob;
  }

  /** Lets the fills that wait go first, where one that hardly moves on is to be resumed. */
  async #giveWay(fill: RunningFill, signal: AbortSignal): Promise<void> {
    fill.release?.();
    fill.release = this.#slots.take(fill);
    fill.release ??= await this.#slots.wait(fill, signal);
  }

  /** The window of a fill shrinks as their number grows, of those that run too. */
  #shareWindows(): void {
    const windowBytes = windowBytesFor(this.#slots.held);
    if (windowBytes === this.#windowBytes) return;
    const isSmaller = windowBytes < this.#windowBytes;
    this.#windowBytes = windowBytes;
    if (!isSmaller) return;
    for (const { blob } of this.#running.values()) blob?.onSmallerWindow();
  }

  /** A fill without readers gives its slot to one that a client waits for; else one that hardly moves on. */
  #makeRoom(upstream: string | undefined): void {
    const candidates = [...this.#running.values()].filter(
      (fill) =>
        fill.blob !== undefined &&
        (upstream === undefined || fill.upstream === upstream),
    );
    const unread = candidates.find((fill) => !isRead(fill));
    if (unread !== undefined) void unread.blob?.suspend();
    else candidates.find((fill) => fill.blob?.cutTrickle());
  }

  async #stopUnread(): Promise<boolean> {
    for (const fill of this.#running.values()) {
      if (fill.blob === undefined || fill.isReserving || isRead(fill)) continue;
      void fill.blob.suspend();
      await fill.ended;
      return true;
    }
    return false;
  }

  /** It never began. */
  #forget(fill: RunningFill): void {
    this.#running.delete(fillKey(fill.upstream, fill.digest));
    fill.reservation?.release();
    this.#metrics.fillsInProgress.dec({ upstream: fill.metricLabel });
  }

  async #watch(fill: RunningFill, blob: BlobFill): Promise<void> {
    const startedAtMs = this.#clock.monotonicMs();
    fill.blob = blob;
    const end = await blob.ended;
    this.#finish(fill, end, this.#clock.monotonicMs() - startedAtMs);
  }

  #finish(fill: RunningFill, end: FillEnd, durationMs: number): void {
    const { upstream } = fill.key;
    this.#running.delete(fillKey(upstream, fill.digest));
    fill.reservation?.release();
    this.#metrics.fillsInProgress.dec({ upstream: fill.metricLabel });
    if (end.outcome === "stored") this.#storages.onStored();
    if (end.outcome === "mismatch") {
      this.#metrics.digestMismatches.inc();
      this.#bans.add(upstream, fill.digest, end.endpoints);
    }
    if (end.outcome === "mismatch" || end.outcome === "broken") {
      this.#metrics.fillFailures.inc({
        upstream: fill.metricLabel,
        reason: reasonOf(end),
      });
    }
    this.#log[end.error === undefined ? "info" : "warn"](
      {
        upstream,
        repository: fill.key.repository,
        digest: fill.digest,
        outcome: end.outcome,
        sizeBytes: end.sizeBytes,
        resumes: end.resumes,
        durationMs: Math.round(durationMs),
        ...(end.error === undefined ? {} : { err: end.error }),
      },
      "fill",
    );
  }
}

/** A closed list: it labels a metric. */
function reasonOf(end: FillEnd): string {
  if (end.outcome === "mismatch") return "digest-mismatch";
  return end.error instanceof UpstreamError ? end.error.kind : "storage";
}
