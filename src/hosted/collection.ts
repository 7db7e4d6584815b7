import { setImmediate as nextTurn } from "node:timers/promises";
import type { Evictor } from "../retention/evictor.ts";
import type { HostedCollection } from "../storage/hosted-index.ts";
import { IndexAwayError } from "../storage/metadata-index.ts";
import {
  type Clock,
  type Schedule,
  scheduleUnref,
} from "../telemetry/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import { ClockSteps } from "./clock-steps.ts";
import type { Retention, RetentionDeletion } from "./retention/retention.ts";

export interface CollectionOptions {
  readonly index: HostedCollection;
  readonly evictor: Pick<Evictor, "purgeCondemned">;
  /** Applied by {@link Collection.collect}; absent: everything is kept. */
  readonly retention?: Pick<Retention, "plan" | "apply">;
  readonly clock: Clock;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly schedule?: Schedule;
  /** The most blobs that a dry run counts. */
  readonly maxPreviewedBlobs?: number;
}

export interface GarbageReport {
  /** Tags and manifests that retention deleted, or would delete: the first of them. */
  readonly deleted: readonly RetentionDeletion[];
  /** The number of these deletions, listed or not. */
  readonly deletions: number;
  /**
   * Blobs that were removed, or would be. A dry run does not count blobs that only `deleted` needs, and ends
   * at 1 000 blobs while the mirror runs.
   */
  readonly blobs: number;
  /** Bytes of these blobs. */
  readonly bytes: number;
}

interface PassOptions {
  readonly signal?: AbortSignal | undefined;
  readonly isBackground?: boolean;
}

/** How long a push may name a blob after a client received the answer that it exists. */
const GRACE_MS = 3_600_000;
/** Space is free within a minute, even if a claim expires and no request follows. */
const CHECK_EVERY_MS = 20_000;
/**
 * How long the background collection keeps the blobs that a deleted manifest named. The put of a manifest ends
 * the claims of all clients, so another push that received the answer that a blob exists loses it when
 * that manifest is deleted; within this time it does not.
 */
const DELETED_GRACE_MS = 25_000;
/** The delay after a notification, so that one pass serves many deletions. */
const NOTIFIED_AFTER_MS = DELETED_GRACE_MS + 1_000;
/** Links per transaction, which bounds the wait of a request. */
const LINKS_PER_STEP = 16;
/**
 * A preview is one transaction: requests wait for it, about a tenth of a millisecond per blob. The
 * collection in the background leaves fewer than this.
 */
const MAX_PREVIEWED_BLOBS = 1_000;

/**
 * Frees the space of hosted blobs that nothing needs, while requests are served: drops their links,
 * a few per transaction, then removes the bytes. Idle until a deletion notifies it, except
 * for a check three times a minute.
 */
export class Collection {
  readonly #options: CollectionOptions;
  readonly #schedule: Schedule;
  readonly #clockSteps: ClockSteps;
  /** The last pass; passes run one at a time. */
  #last: Promise<unknown> = Promise.resolve();
  #cancel: (() => void) | undefined;
  #isNotified = false;
  #isTicking = false;
  #isStarted = false;
  #isStopped = false;

  constructor(options: CollectionOptions) {
    this.#options = options;
    this.#schedule = options.schedule ?? scheduleUnref;
    this.#clockSteps = new ClockSteps(options.clock, GRACE_MS);
  }

  /** Starts the background collection. Called when the index is complete: until then content may look unneeded. */
  start(): void {
    if (this.#isStopped || this.#isStarted) return;
    this.#isStarted = true;
    void this.#tick();
  }

  /** Collects soon, after a request that may have left something unneeded. */
  notify(): void {
    if (!this.#isStarted || this.#isNotified || this.#isStopped) return;
    this.#isNotified = true;
    if (!this.#isTicking) this.#tickLater();
  }

  /**
   * Applies the rules of retention, then removes every blob of hosted repositories that nothing needs
   * and that no running push may still name. Joins the background collection, and never delays a read.
   *
   * @param isDryRun reports only, and changes nothing
   * @throws IndexError if the index can't be read or written
   */
  async collect({
    isDryRun,
    signal,
  }: {
    readonly isDryRun: boolean;
    readonly signal?: AbortSignal;
  }): Promise<GarbageReport> {
    const { retention, maxPreviewedBlobs = MAX_PREVIEWED_BLOBS } =
      this.#options;
    const untilEnd = { signal };
    if (isDryRun) {
      const deleted = await retention?.plan(untilEnd);
      const found = await this.#options.index.previewCollection(
        this.#claimedBeforeMs(),
        maxPreviewedBlobs,
      );
      return {
        deleted: deleted?.listed ?? [],
        deletions: deleted?.count ?? 0,
        blobs: found.length,
        bytes: found.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      };
    }
    const deleted = await retention?.apply({ ...untilEnd, timed: "all" });
    const freed = await this.#pass({ signal });
    return {
      deleted: deleted?.listed ?? [],
      deletions: deleted?.count ?? 0,
      ...freed,
    };
  }

  /** Frees the space of what nothing needs, without retention. */
  reclaim(): Promise<{ readonly blobs: number; readonly bytes: number }> {
    return this.#pass();
  }

  /** Resolves when the running pass has ended; no other one starts. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancel?.();
    await this.#last;
  }

  #tickLater(): void {
    if (this.#isStopped) return;
    this.#cancel?.();
    this.#cancel = this.#schedule(
      () => void this.#tick(),
      this.#isNotified ? NOTIFIED_AFTER_MS : CHECK_EVERY_MS,
    );
  }

  async #tick(): Promise<void> {
    this.#isTicking = true;
    this.#isNotified = false;
    try {
      await this.#pass({ isBackground: true });
    } catch (error) {
      // There is nothing to collect while the root is absent, which its watch has logged.
      if (!(error instanceof IndexAwayError)) {
        this.#options.log.warn(
          { err: error },
          "the collection of hosted blobs failed and is retried",
        );
      }
    }
    this.#isTicking = false;
    this.#tickLater();
  }

  /** @returns the number of removed blobs and their bytes */
  #pass(options: PassOptions = {}): Promise<{ blobs: number; bytes: number }> {
    const pass = this.#last.then(() => this.#run(options));
    this.#last = pass.catch(() => undefined);
    return pass;
  }

  async #run({
    signal,
    isBackground = false,
  }: PassOptions): Promise<{ blobs: number; bytes: number }> {
    const { index, evictor, clock, log } = this.#options;
    const isOver = (): boolean => this.#isStopped || signal?.aborted === true;
    let [links, blobs, bytes] = [0, 0, 0];
    for (let isEnd = false; !isEnd && !isOver(); await nextTurn()) {
      const step = await index.dropUnneededLinks(
        this.#claimedBeforeMs(),
        LINKS_PER_STEP,
        isBackground ? clock.nowMs() - DELETED_GRACE_MS : undefined,
      );
      links += step.links;
      isEnd = step.isEnd;
    }
    for (let isEnd = false; !isEnd && !isOver();) {
      const purged = await evictor.purgeCondemned();
      blobs += purged.blobs;
      bytes += purged.bytes;
      isEnd = purged.isEnd;
    }
    if (blobs > 0) {
      log.info(
        { links, blobs, sizeBytes: bytes },
        "removed hosted blobs that nothing needs",
      );
    }
    return { blobs, bytes };
  }

  /** Returns the time before which a claim has expired. After a step of the clock no claim expires: its age is unknown. */
  #claimedBeforeMs(): number {
    return this.#clockSteps.isRecent()
      ? 0
      : this.#options.clock.nowMs() - GRACE_MS;
  }
}
