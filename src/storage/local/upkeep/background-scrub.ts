import type { ScrubFinding } from "../../scrub-report.ts";
import { setTimeout as delay } from "node:timers/promises";
import {
  type Clock,
  type Schedule,
  scheduleUnref,
} from "../../../telemetry/clock.ts";
import type { Logger } from "../../../telemetry/logger.ts";
import { IndexAwayError } from "../../metadata-index.ts";
import { Scrub, type ScrubOptions, type ScrubParts } from "./scrub.ts";

const DAY_MS = 24 * 60 * 60 * 1000;
const TICK_MS = 60_000;
/** Bounds the rate regardless of the due bytes, because pulls need the disk too. */
const MAX_BYTES_PER_SECOND = 10 * 1024 * 1024;
/** Bounds the due bytes after the machine was suspended. */
const MAX_DUE_TICKS = 60;

export interface BackgroundScrubOptions {
  /** @throws IndexAwayError while the storage is not open */
  readonly parts: () => ScrubParts;
  /** The share of all bytes to read per day; 0 disables the scrub. May change at any time. */
  readonly dailyShare: () => number;
  readonly clock: Clock;
  readonly log: Pick<Logger, "warn">;
  readonly onFinding: (finding: ScrubFinding) => void;
  readonly onDropped: NonNullable<ScrubOptions["onDropped"]>;
  readonly schedule?: Schedule | undefined;
}

/**
 * Compares one blob after another with its digest and its row, spread over the day. A start continues
 * after the last blob of the previous process. Damaged blobs are dropped and fetched again.
 */
export class BackgroundScrub {
  readonly #options: BackgroundScrubOptions;
  readonly #schedule: Schedule;
  readonly #abort = new AbortController();
  #cancel: (() => void) | undefined;
  #tick: Promise<void> = Promise.resolve();
  #dueBytes = 0;
  #place: number | undefined;
  #lastTickMs: number;

  constructor(options: BackgroundScrubOptions) {
    this.#options = options;
    this.#schedule = options.schedule ?? scheduleUnref;
    this.#lastTickMs = options.clock.monotonicMs();
    this.#wait();
  }

  async stop(): Promise<void> {
    this.#cancel?.();
    this.#abort.abort(new Error("the scrub was stopped"));
    await this.#tick;
  }

  #wait(): void {
    this.#cancel = this.#schedule(() => {
      this.#tick = this.#run()
        .catch((error: unknown) => {
          if (this.#abort.signal.aborted) return;
          // The root watch has logged it.
          if (error instanceof IndexAwayError) return;
          this.#options.log.warn(
            { err: error },
            "the background scrub failed and will be retried",
          );
        })
        .then(() => {
          if (!this.#abort.signal.aborted) this.#wait();
        });
    }, TICK_MS);
  }

  async #run(): Promise<void> {
    const { parts, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    const dailyShare = this.#options.dailyShare();
    if (dailyShare === 0) {
      this.#lastTickMs = nowMs;
      return;
    }
    const { blobBytes } = await parts().index.rows.totals();
    const sinceMs = Math.min(nowMs - this.#lastTickMs, TICK_MS * MAX_DUE_TICKS);
    this.#lastTickMs = nowMs;
    const bytesPerDay = blobBytes * dailyShare;
    this.#dueBytes = Math.min(
      this.#dueBytes + (bytesPerDay * sinceMs) / DAY_MS,
      bytesPerDay,
    );
    let at = this.#place ?? parts().index.audit.readScrubPlace();
    while (this.#dueBytes > 0) {
      this.#abort.signal.throwIfAborted();
      const [row] = parts().index.audit.listRows(at, 1);
      if (row === undefined) {
        if (at === 0) return;
        at = 0;
        this.#keepPlace(at);
        continue;
      }
      const scrub = new Scrub({
        ...parts(),
        isRepair: true,
        isOnline: true,
        signal: this.#abort.signal,
        pace: (bytes) => this.#pace(bytes),
        onDropped: this.#options.onDropped,
      });
      await scrub.checkBlob(row);
      // Even an empty blob costs disk operations.
      this.#dueBytes -= Math.max(row.sizeBytes, 4096);
      at = row.id;
      this.#keepPlace(at);
      for (const finding of scrub.report.findings) {
        this.#options.onFinding(finding);
      }
    }
  }

  /** If the write fails, the next process reads some blobs again. */
  #keepPlace(id: number): void {
    this.#place = id;
    try {
      this.#options.parts().index.audit.writeScrubPlace(id);
    } catch {
      // A later call writes it.
    }
  }

  async #pace(bytes: number): Promise<void> {
    const { signal } = this.#abort;
    await delay((bytes / MAX_BYTES_PER_SECOND) * 1000, undefined, {
      signal,
      ref: false,
    });
  }
}
