import type { BlobStore } from "../cache/blob-store.ts";
import { StorageError } from "../cache/blob-store.ts";
import type { MetadataIndex, RepositoryKey } from "../cache/metadata-index.ts";
import type { Reservation, Room } from "../cache/room.ts";
import { type Digest, digestAlgorithm, possibleSize } from "../oci/digest.ts";
import type { Clock } from "../telemetry/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { UpstreamError } from "../upstream/errors.ts";
import { BlobFill, type FillEnd } from "./blob-fill.ts";
import { FillBans, fillKey } from "./fill-bans.ts";
import type { FillStorage } from "./fill-bytes.ts";
import type { FillHead } from "./fill-download.ts";
import type { FillReader } from "./fill-reader.ts";
import { FillSlots } from "./fill-slots.ts";
import {
  ANSWER_DEADLINE_MS,
  type MirroredUpstream,
} from "./mirrored-upstream.ts";

/** Memory for the newest bytes of all fills together, shared out between those that run. */
const ALL_WINDOWS_BYTES = 64 * 1024 * 1024;
/** Twice what is written at once: one half is collected while the other is written. */
const MAX_WINDOW_BYTES = 4 * 1024 * 1024;
const MIN_WINDOW_BYTES = 512 * 1024;

/** Why the storage is avoided for a while after it failed: a full disk is not asked for each blob. */
const STORAGE_REST_MS = 5_000;

/** A reader of a fill, and what is known of the blob. */
export interface JoinedFill {
  readonly body: FillReader;
  /** @throws UpstreamError where the upstream gave no body */
  readonly head: Promise<FillHead>;
  readonly isStored: boolean;
  readonly receivedBytes: number;
  /** The head waits for the digest, because the upstream's length contradicts the descriptor. */
  readonly isSizeDoubted: boolean;
  /** Waits for the digest. @throws what the fill failed with */
  verifiedSize(): Promise<number>;
}

/** A fill from the moment that it was decided on; its storage may still be on its way. */
export interface Fill {
  readonly digest: Digest;
  /** Where the bytes come from. */
  readonly key: RepositoryKey;
  /** Ranges that are served from the upstream beside it. */
  sideRanges: number;
  /** Resolves when the blob is stored, or will not come, and another fill may be started. */
  readonly ended: Promise<void>;
  /** @returns undefined when it has ended: the blob is stored, or will not come */
  openReader(): Promise<JoinedFill | undefined>;
}

interface RunningFill extends Fill {
  readonly upstream: MirroredUpstream;
  readonly opened: Promise<BlobFill>;
  /** Set once {@link opened} has resolved. */
  blob: BlobFill | undefined;
  reservation: Reservation | undefined;
  /** Readers that were promised and are not open yet. */
  waiting: number;
}

/**
 * All fills that run: one for each (upstream, digest), however many clients ask. Two upstreams that
 * fetch one digest are two downloads: what one of them sends, late or wrong, is not the other's.
 */
export class Fills {
  readonly #store: BlobStore;
  readonly #index: MetadataIndex;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #metrics: Metrics;
  readonly #room: Pick<Room, "reserve" | "isShort"> | undefined;
  readonly #isSoleUpstream: () => boolean;
  readonly #running = new Map<string, RunningFill>();
  readonly #bans: FillBans;
  readonly #slots: FillSlots;
  #storageRestsUntilMs = -Infinity;
  #isClosing = false;

  constructor(options: {
    store: BlobStore;
    index: MetadataIndex;
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
    this.#store = options.store;
    this.#index = options.index;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#metrics = options.metrics;
    this.#room = options.room;
    this.#isSoleUpstream = options.isSoleUpstream;
    this.#bans = new FillBans(options.clock);
    this.#slots = new FillSlots(options.maxFills, () => this.#endUnread());
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
      upstream,
      key,
      digest,
      opened,
      ended: opened.then(
        (blob) => this.#watch(fill, blob),
        () => this.#forget(fill),
      ),
      blob: undefined,
      reservation: undefined,
      waiting: 0,
      sideRanges: 0,
      openReader: () => this.#openReader(fill),
    };
    this.#running.set(name, fill);
    resolve(this.#open(fill));
    this.#metrics.fillsInProgress.inc({ upstream: key.upstream });
    return fill;
  }

  /** Whether a fill runs that somebody reads. */
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

  async #openReader(fill: RunningFill): Promise<JoinedFill | undefined> {
    fill.waiting++;
    try {
      const blob = await fill.opened;
      if (!blob.isJoinable) return undefined;
      return {
        body: blob.openReader(),
        head: blob.head,
        get isStored() {
          return blob.isStored;
        },
        get receivedBytes() {
          return blob.receivedBytes;
        },
        get isSizeDoubted() {
          return blob.isSizeDoubted;
        },
        verifiedSize: () => blob.verifiedSize(),
      };
    } finally {
      fill.waiting--;
    }
  }

  async #open(fill: RunningFill): Promise<BlobFill> {
    const askedAtMs = this.#clock.monotonicMs();
    const release = await this.#slots.acquire();
    try {
      const blob = await this.#openBlob(fill, askedAtMs);
      void blob.ended.finally(release);
      return blob;
    } catch (error) {
      release();
      throw error;
    }
  }

  async #openBlob(fill: RunningFill, askedAtMs: number): Promise<BlobFill> {
    const { upstream, key, digest } = fill;
    await this.#makeRoom(upstream);
    const descriptor = await this.#index
      .findDescriptor(key, digest)
      .catch(() => undefined);
    const expectedBytes = possibleSize(digest, descriptor?.sizeBytes);
    const algorithm = digestAlgorithm(digest);
    const windowBytes = Math.max(
      MIN_WINDOW_BYTES,
      Math.min(MAX_WINDOW_BYTES, ALL_WINDOWS_BYTES / (this.#running.size + 1)),
    );
    const blob = new BlobFill({
      digest,
      expectedBytes,
      windowBytes,
      avoid: this.#bans.endpoints(key.upstream, digest),
      headersTimeoutMs: Math.max(
        1,
        Math.round(
          ANSWER_DEADLINE_MS - (this.#clock.monotonicMs() - askedAtMs),
        ),
      ),
      storage: await this.#openStorage(fill, expectedBytes),
      open: (options) =>
        upstream.client.openBlob(key.repository, digest, options),
      createHash: () => this.#store.createHash(algorithm, expectedBytes),
      onVerified: async (sizeBytes, publish) => {
        const isNoted = await this.#index
          .beginFill(key, { digest, sizeBytes })
          .then(
            () => true,
            () => false,
          );
        try {
          await publish();
        } catch (error) {
          await this.#index.dropIntent(digest).catch(() => {});
          throw error;
        }
        try {
          await this.#index.recordBlob(key, {
            digest,
            sizeBytes,
            storedAtMs: this.#clock.nowMs(),
          });
        } catch (error) {
          // No row names the file. What is noted gets its row when the index takes one.
          if (!isNoted && (await this.#isStored(digest)) !== true) {
            await this.#store.remove(digest).catch(() => {});
          }
          throw error;
        }
      },
      onResume: () => {
        this.#metrics.upstreamResumes.inc({ upstream: key.upstream });
      },
      onDegraded: (error) => this.#onStorageFault(error),
    });
    if (this.#isClosing) void blob.suspend();
    return blob;
  }

  /** A fill that nobody reads gives its place to one that somebody waits for. */
  async #makeRoom(upstream: MirroredUpstream): Promise<void> {
    const own = [...this.#running.values()].filter(
      (fill) => fill.upstream === upstream,
    );
    if (own.length < (upstream.concurrency || Infinity)) return;
    const unread = own.find((fill) => fill.blob !== undefined && !isRead(fill));
    await unread?.blob?.suspend();
  }

  /** The same whatever its upstream, for those who wait for any slot. */
  #endUnread(): void {
    for (const fill of this.#running.values()) {
      if (fill.blob === undefined || isRead(fill)) continue;
      void fill.blob.suspend();
      return;
    }
  }

  /** It never began. */
  #forget(fill: RunningFill): void {
    this.#running.delete(fillKey(fill.key.upstream, fill.digest));
    fill.reservation?.release();
    this.#metrics.fillsInProgress.dec({ upstream: fill.key.upstream });
  }

  async #openStorage(
    fill: RunningFill,
    expectedBytes: number | undefined,
  ): Promise<FillStorage> {
    const { digest } = fill;
    if (
      this.#clock.monotonicMs() >= this.#storageRestsUntilMs &&
      (await this.#reserve(fill, expectedBytes))
    ) {
      try {
        const partial = await this.#store.openPartial(digest, expectedBytes, {
          upstream: fill.key.upstream,
          mayAdopt: await this.#mayAdopt(digest),
        });
        return { kind: "partial", partial };
      } catch (error) {
        this.#onStorageFault(error);
      }
    }
    return {
      kind: "none",
      hash: this.#store.createHash(digestAlgorithm(digest), expectedBytes),
      offset: 0,
    };
  }

  /** @returns false when there is no room for all of it: then none of it is stored */
  async #reserve(
    fill: RunningFill,
    expectedBytes: number | undefined,
  ): Promise<boolean> {
    if (expectedBytes === undefined || this.#room === undefined) return true;
    fill.reservation = await this.#room.reserve(
      expectedBytes,
      () => expectedBytes - (fill.blob?.storedEnd ?? 0),
    );
    if (fill.reservation !== undefined) return true;
    this.#noteDegraded(new StorageError("reserve", "ENOSPC"));
    return false;
  }

  #onStorageFault(error: unknown): void {
    this.#storageRestsUntilMs = this.#clock.monotonicMs() + STORAGE_REST_MS;
    this.#noteDegraded(error);
  }

  #noteDegraded(error: unknown): void {
    this.#metrics.storageDegraded.set(1);
    this.#log.warn(
      { err: error },
      "the storage takes no writes: downloads are passed through",
    );
  }

  /**
   * Bytes that lie in the storage and that no row names are of an upstream that is not known: a fill
   * starts from them only where there is no other.
   */
  async #mayAdopt(digest: Digest): Promise<boolean> {
    return this.#isSoleUpstream() && (await this.#isStored(digest)) === false;
  }

  /** @returns undefined where the index does not say */
  #isStored(digest: Digest): Promise<boolean | undefined> {
    return this.#index.getBlob(digest).then(
      (row) => row !== undefined,
      () => undefined,
    );
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
    this.#metrics.fillsInProgress.dec({ upstream });
    if (end.outcome === "stored" && this.#room?.isShort !== true) {
      this.#metrics.storageDegraded.set(0);
    }
    if (end.outcome === "mismatch") {
      this.#metrics.digestMismatches.inc();
      this.#bans.add(upstream, fill.digest, end.endpoints);
    }
    if (end.outcome === "mismatch" || end.outcome === "broken") {
      this.#metrics.fillFailures.inc({ upstream, reason: reasonOf(end) });
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

function isRead(fill: RunningFill): boolean {
  return fill.waiting > 0 || fill.blob?.hasReaders === true;
}

/** A closed list: it labels a metric. */
function reasonOf(end: FillEnd): string {
  if (end.outcome === "mismatch") return "digest-mismatch";
  return end.error instanceof UpstreamError ? end.error.kind : "storage";
}
