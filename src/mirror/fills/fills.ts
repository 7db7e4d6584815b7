import type { BlobRecords, FillIntents } from "../../storage/blob-index.ts";
import type { ImageGraph } from "../../storage/graph-index.ts";
import {
  type Digest,
  digestAlgorithm,
  possibleSize,
} from "../../oci/digest.ts";
import { UpstreamError } from "../../wire/errors.ts";
import type { Release } from "../../wire/semaphore.ts";
import { shareSocketBuffers } from "../../wire/socket-buffers.ts";
import { BlobFill } from "./blob-fill.ts";
import { FillBans, fillKey } from "./fill-bans.ts";
import type { FillEnd } from "./fill-options.ts";
import { publishVerified } from "./fill-publication.ts";
import { FillSlots, tooManyFills } from "./fill-slots.ts";
import { FillStorages, type FillStoragesOptions } from "./fill-storages.ts";
import { windowBytesFor } from "./fill-windows.ts";
import { type MirroredUpstream } from "../mirrored-upstream.ts";
import {
  type Fill,
  isRead,
  type JoinedFill,
  type RunningFill,
  type FillProgress,
  type FollowedEnd,
} from "./running-fill.ts";
import { withinPatience } from "../answer-deadline.ts";
import { ANSWER_DEADLINE_MS } from "../../wire/deadline.ts";
import type { RepositoryKey } from "../../oci/reference.ts";

type FillsIndex = Pick<BlobRecords, "getBlob" | "recordBlob"> &
  Pick<FillIntents, "beginFill" | "dropIntent"> &
  Pick<ImageGraph, "findDescriptor">;

const MAX_SIDE_RANGES = 2;

export interface FillsOptions extends Omit<
  FillStoragesOptions,
  "index" | "stopUnread"
> {
  readonly index: FillsIndex;
  /** Returns how many fills of all upstreams may run at a time. May change at any time. */
  readonly maxFills: () => number;
}

/**
 * The running fills: one for each upstream and digest, for any number of clients. A digest from two
 * upstreams is two downloads, so that slow or wrong bytes of one upstream do not affect the other.
 */
export class Fills {
  readonly #options: FillsOptions;
  readonly #running = new Map<string, RunningFill>();
  readonly #bans: FillBans;
  readonly #slots: FillSlots;
  readonly #storages: FillStorages;
  #windowBytes = windowBytesFor(1);
  #isClosing = false;

  constructor(options: FillsOptions) {
    const { clock, maxFills } = options;
    this.#options = options;
    this.#bans = new FillBans(clock);
    this.#slots = new FillSlots({
      limit: maxFills,
      makeRoom: (upstream) => this.#makeRoom(upstream),
      monotonicMs: () => clock.monotonicMs(),
    });
    this.#storages = new FillStorages({
      ...options,
      stopUnread: () => this.#stopUnread(),
    });
  }

  get(upstream: string, digest: Digest): Fill | undefined {
    return this.#running.get(fillKey(upstream, digest));
  }

  /** Returns the bytes that a running download has received; 0 if none runs. */
  receivedBytes(upstream: string, digest: Digest): number {
    const fill = this.#running.get(fillKey(upstream, digest));
    return fill?.blob?.receivedBytes ?? 0;
  }

  /** True if this upstream recently sent wrong bytes for this digest. */
  isBanned(upstream: string, digest: Digest): boolean {
    return this.#bans.isBanned(upstream, digest);
  }

  /** Returns the fill of a digest from an upstream; starts one if none runs. */
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
      followers: 0,
      hasGivenWay: false,
      isWanted: () => isRead(fill),
      isKept: () => fill.followers > 0,
      follow: () => follow(fill),
      openReader: (patienceMs) => this.#openReader(fill, patienceMs),
      takeSideRange: () => this.#takeSideRange(fill),
    };
    this.#running.set(name, fill);
    resolve(this.#open(fill));
    this.#options.metrics.fillsInProgress.inc({ upstream: fill.metricLabel });
    return fill;
  }

  /** Lists the running fills, oldest first. */
  list(): readonly FillProgress[] {
    return [...this.#running.values()].map(
      ({ key, digest, blob, waiting }) => ({
        key,
        digest,
        receivedBytes: blob?.receivedBytes ?? 0,
        sizeBytes: blob?.sizeBytes,
        clients: waiting + (blob?.readerCount ?? 0),
      }),
    );
  }

  /** True if a client reads one of the fills. */
  get hasReaders(): boolean {
    return [...this.#running.values()].some(isRead);
  }

  /** Ends every fill and keeps the received bytes; later fills end immediately. */
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
    // A client is refused before it times out; the wait for a slot does not count against the upstream.
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
    const release = this.#slots.takeSide(fill);
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
    const descriptor = await this.#options.index
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
      monotonicMs: () => this.#options.clock.monotonicMs(),
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
              // The bytes would be neither stored nor read.
              if (!isRead(fill)) void blob.suspend();
            });
          fill.isReserving = false;
        }
        return body;
      },
      createHash: () =>
        this.#options.store.createHash(algorithm, expectedBytes),
      onVerified: (sizeBytes, publish) =>
        publishVerified(this.#options, key, { digest, sizeBytes }, publish),
      giveWay: (signal) => this.#giveWay(fill, signal),
      onResume: () => {
        this.#options.metrics.upstreamResumes.inc({
          upstream: fill.metricLabel,
        });
      },
      onDegraded: (error) => this.#storages.onFault(error),
    });
    if (this.#isClosing) void blob.suspend();
    return blob;
  }

  /** Lets waiting fills go first, before a fill that was too slow is resumed. */
  async #giveWay(fill: RunningFill, signal: AbortSignal): Promise<void> {
    fill.release?.();
    fill.release = this.#slots.take(fill);
    fill.release ??= await this.#slots.wait(fill, signal);
  }

  /** Divides the memory among the running fills; windows shrink as their number grows. */
  #shareWindows(): void {
    shareSocketBuffers(this.#slots.held);
    const windowBytes = windowBytesFor(this.#slots.held);
    if (windowBytes === this.#windowBytes) return;
    const isSmaller = windowBytes < this.#windowBytes;
    this.#windowBytes = windowBytes;
    if (!isSmaller) return;
    for (const { blob } of this.#running.values()) blob?.onSmallerWindow();
  }

  /** Frees a slot for a fill that a client waits for: ends a fill without readers or, failing that, a slow body. */
  #makeRoom(upstream: string | undefined): void {
    const candidates = [...this.#running.values()].filter(
      (fill) =>
        fill.blob !== undefined &&
        (upstream === undefined || fill.upstream === upstream),
    );
    const unread = candidates.find((fill) => !isRead(fill));
    if (unread !== undefined) {
      unread.hasGivenWay = true;
      void unread.blob?.suspend();
    } else candidates.find((fill) => fill.blob?.cutTrickle());
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

  /** Removes a fill that could not be opened. */
  #forget(fill: RunningFill): void {
    this.#running.delete(fillKey(fill.upstream, fill.digest));
    fill.reservation?.release();
    this.#options.metrics.fillsInProgress.dec({ upstream: fill.metricLabel });
  }

  async #watch(fill: RunningFill, blob: BlobFill): Promise<void> {
    const startedAtMs = this.#options.clock.monotonicMs();
    fill.blob = blob;
    const end = await blob.ended;
    this.#finish(fill, end, this.#options.clock.monotonicMs() - startedAtMs);
  }

  #finish(fill: RunningFill, end: FillEnd, durationMs: number): void {
    const { upstream } = fill.key;
    this.#running.delete(fillKey(upstream, fill.digest));
    fill.reservation?.release();
    this.#options.metrics.fillsInProgress.dec({ upstream: fill.metricLabel });
    if (end.outcome === "stored") this.#storages.onStored();
    if (end.outcome === "mismatch") {
      this.#options.metrics.digestMismatches.inc();
      this.#bans.add(upstream, fill.digest, end.endpoints);
    }
    if (end.outcome === "mismatch" || end.outcome === "broken") {
      this.#options.metrics.fillFailures.inc({
        upstream: fill.metricLabel,
        reason: reasonOf(end),
      });
    }
    this.#options.log[end.error === undefined ? "info" : "warn"](
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
      "a blob fill has ended",
    );
  }
}

/** See {@link RunningFill.follow}. */
async function follow(fill: RunningFill): Promise<FollowedEnd> {
  fill.followers += 1;
  try {
    const { outcome, error } = await (await fill.opened).ended;
    await fill.ended;
    if (outcome === "refused") return "refused";
    if (outcome !== "stored" && fill.hasGivenWay) return "gave-way";
    if (error instanceof UpstreamError) throw error;
    return "ended";
  } finally {
    fill.followers -= 1;
  }
}

/** Returns the value of a metric label, from a closed list. */
function reasonOf(end: FillEnd): string {
  if (end.outcome === "mismatch") return "digest-mismatch";
  return end.error instanceof UpstreamError ? end.error.kind : "storage";
}
