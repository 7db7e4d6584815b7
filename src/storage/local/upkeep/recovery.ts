import type { Clock } from "../../../telemetry/clock.ts";
import type { Logger } from "../../../telemetry/logger.ts";
import type { DiskLayout } from "../root/disk-layout.ts";
import type { FileSystem } from "../root/file-system.ts";
import { journalPages } from "./journal-pages.ts";
import type { KeptIndex } from "../index/kept-index.ts";
import { reconcile } from "./reconcile.ts";
import type { RebuildWait } from "./rebuild-wait.ts";
import type { RootsJournal } from "./roots-journal.ts";

export interface RecoveryOptions {
  readonly layout: DiskLayout;
  readonly fileSystem: FileSystem;
  readonly clock: Clock;
  readonly log: Pick<Logger, "info" | "warn" | "error">;
  readonly kept: KeptIndex;
  readonly journal: RootsJournal;
  /** Lets requests wait while the index has less than the journal. */
  readonly rebuild: RebuildWait;
}

/** Checks and repairs the root in the background after a start, and after the index was replaced. */
export class Recovery {
  readonly #options: RecoveryOptions;
  readonly #abort = new AbortController();
  #work: Promise<void> = Promise.resolve();
  #shrinking: Promise<void> = Promise.resolve();
  #running = 0;
  /** Whether the next start must repeat the recovery. */
  isUnfinished = false;

  constructor(options: RecoveryOptions) {
    this.#options = options;
  }

  get isRunning(): boolean {
    return this.#running > 0;
  }

  /**
   * @param isSound whether the check of the index's file for damage can be skipped
   * @param isLast whether the index is the one of the last process. It then has more than the
   *   journal, which lacks the last second before a crash and is wrong after a change of the clock
   */
  start({
    isSound,
    isLast,
  }: {
    readonly isSound: boolean;
    readonly isLast: boolean;
  }): void {
    this.isUnfinished = true;
    if (isLast) this.#options.kept.markWhole();
    else this.#options.kept.markPartial();
    const { rebuild } = this.#options;
    if (!isLast) rebuild.begin();
    this.#run(async () => {
      try {
        if (!isSound && (await this.#isDamaged())) return;
        await this.#reconcile(isLast);
      } finally {
        // If the index was replaced, another run fills the new one.
        if (!isLast && this.#running === 1) rebuild.end();
      }
      this.#options.kept.markWhole();
      await this.#compact();
      this.isUnfinished = false;
    });
  }

  /** After a clean stop: compacts the journal if that is worth the time. */
  compact(): void {
    const { kept, journal } = this.#options;
    kept.markWhole();
    this.#run(async () => {
      const { tags, manifests } = await kept.index.totals();
      if (await journal.hasSlack(tags, manifests)) await this.#compact();
    });
  }

  /** Compacts the journal of a running mirror. A recovery does the same at its end. */
  shrinkJournal(): void {
    const { log } = this.#options;
    this.#shrinking = this.#shrinking
      .then(async () => {
        if (this.isUnfinished || this.#abort.signal.aborted) return;
        await this.#compact();
        log.info("removed obsolete lines from the journal of roots");
      })
      .catch((error: unknown) => {
        if (this.#abort.signal.aborted) return;
        log.warn({ err: error }, "could not compact the journal of roots");
      });
  }

  async ended(): Promise<void> {
    // A run may have started another one.
    while (this.isRunning) await this.#work;
  }

  async stop(): Promise<void> {
    this.#abort.abort(new Error("the storage is being closed"));
    this.#options.rebuild.end();
    await this.#work;
    await this.#shrinking;
  }

  #run(work: () => Promise<void>): void {
    this.#running += 1;
    this.#work = this.#work
      .then(async () => {
        if (!this.#abort.signal.aborted) await work();
      })
      .catch((error: unknown) => {
        if (this.#abort.signal.aborted) return;
        this.#options.log.warn(
          { err: error },
          "could not complete the recovery of the storage; the next start retries it",
        );
      })
      .finally(() => {
        this.#running -= 1;
      });
  }

  /** @returns true if the index was damaged and has been replaced; another run fills the new one */
  async #isDamaged(): Promise<boolean> {
    const { kept } = this.#options;
    const damage = await kept.findDamage(true);
    if (damage.length === 0) return false;
    await kept.replace(new Error(damage.join("; ")));
    return true;
  }

  async #reconcile(isLast: boolean): Promise<void> {
    const { layout, fileSystem, clock, log, kept, journal, rebuild } =
      this.#options;
    await journal.flush();
    const result = await reconcile({
      layout,
      fileSystem,
      clock,
      index: kept.index,
      audit: kept.audit,
      ...(isLast
        ? { roots: [] }
        : { roots: await journal.read(this.#abort.signal), rebuild }),
      signal: this.#abort.signal,
    });
    log.info(result, "index and blobs were compared");
  }

  async #compact(): Promise<void> {
    const { kept, journal, clock } = this.#options;
    await journal.compact(
      journalPages(
        kept.database,
        kept.index,
        this.#abort.signal,
        clock.nowMs(),
      ),
    );
  }
}
