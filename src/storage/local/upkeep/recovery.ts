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
  /** Requests wait by it for an index that has less than the journal. */
  readonly rebuild: RebuildWait;
}

/** What is done beside the requests after a start, or when the index had to be replaced. */
export class Recovery {
  readonly #options: RecoveryOptions;
  readonly #abort = new AbortController();
  #work: Promise<void> = Promise.resolve();
  #shrinking: Promise<void> = Promise.resolve();
  #running = 0;
  /** The next start has to do it again. */
  isUnfinished = false;

  constructor(options: RecoveryOptions) {
    this.#options = options;
  }

  get isRunning(): boolean {
    return this.#running > 0;
  }

  /**
   * @param isSound the index's file needs no reading for damage
   * @param isLast the index is the one that the last process left: it knows more than the journal,
   *   whose last second a crash takes and whose times a clock that was set makes wrong
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
        // A new index in the damaged one's place is filled next.
        if (!isLast && this.#running === 1) rebuild.end();
      }
      this.#options.kept.markWhole();
      await this.#compact();
      this.isUnfinished = false;
    });
  }

  /** After a clean stop one line a root of the journal is all that is left to do, where it pays. */
  compact(): void {
    const { kept, journal } = this.#options;
    kept.markWhole();
    this.#run(async () => {
      const { tags, manifests } = await kept.index.totals();
      if (await journal.hasSlack(tags, manifests)) await this.#compact();
    });
  }

  /** While the mirror runs: the journal is mostly lines of before. A rebuild ends with the same. */
  shrinkJournal(): void {
    const { log } = this.#options;
    this.#shrinking = this.#shrinking
      .then(async () => {
        if (this.isUnfinished || this.#abort.signal.aborted) return;
        await this.#compact();
        log.info("obsolete lines of the journal of roots were removed");
      })
      .catch((error: unknown) => {
        if (this.#abort.signal.aborted) return;
        log.warn({ err: error }, "the journal of roots could not be compacted");
      });
  }

  async ended(): Promise<void> {
    // What ends may have started more.
    while (this.isRunning) await this.#work;
  }

  async stop(): Promise<void> {
    this.#abort.abort(new Error("the cache is being closed"));
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
          "the cache could not be brought in order: the next start tries again",
        );
      })
      .finally(() => {
        this.#running -= 1;
      });
  }

  /** @returns true when a new index took its place, which then is filled */
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
