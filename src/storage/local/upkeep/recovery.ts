import type { Clock } from "../../../telemetry/clock.ts";
import type { Logger } from "../../../telemetry/logger.ts";
import type { DiskLayout } from "../root/disk-layout.ts";
import type { FileSystem } from "../root/file-system.ts";
import { hostedPages, journalPages } from "./journal-pages.ts";
import type { KeptIndex } from "../index/kept-index.ts";
import { reconcile } from "./reconcile.ts";
import { setTimeout as delay } from "node:timers/promises";
import type { HostedGate } from "../durable/hosted-gate.ts";
import { replayHosted } from "../durable/hosted-replay.ts";
import { isCorruption } from "../index/index-transactions.ts";
import { IndexError } from "../../metadata-index.ts";
import { type JournalRoot, rootName } from "./journal-lines.ts";
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
  /** Lets requests for hosted repositories wait while the index may have less than the journal. */
  readonly gate: HostedGate;
}

/** After a failed replay hosted repositories stay unavailable until a later one succeeds. */
const REPLAY_AGAIN_MS = 5_000;
const MAX_LOGGED_NAMES = 20;

/** Checks and repairs the root in the background after a start, and after the index was replaced. */
export class Recovery {
  readonly #options: RecoveryOptions;
  readonly #abort = new AbortController();
  #work: Promise<void> = Promise.resolve();
  #shrinking: Promise<void> = Promise.resolve();
  #replaying: Promise<void> = Promise.resolve();
  #running = 0;
  /** Whether index and blobs were compared since the last start of a recovery. */
  #isReconciled = false;
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
    const { rebuild, gate } = this.#options;
    if (!isLast) rebuild.begin();
    gate.begin(this.#readRegistries(), isLast);
    this.#run(async () => {
      this.#isReconciled = false;
      try {
        await this.#replay(isLast);
        if (!isSound && (await this.#isDamaged())) return;
        await this.#reconcile(isLast);
        this.#isReconciled = true;
      } finally {
        // If the index was replaced, another run fills the new one.
        if (!isLast && this.#running === 1) rebuild.end();
      }
      await this.#complete();
    });
  }

  /** Ends a recovery after its two parts, of which a replay that failed may be the later one. */
  async #complete(): Promise<void> {
    const { kept, gate } = this.#options;
    // Without the replay a compaction would drop its lines.
    if (gate.isOn || !this.#isReconciled || !this.isUnfinished) return;
    kept.markWhole();
    await this.#compact();
    this.isUnfinished = false;
  }

  #readRegistries(): readonly string[] {
    try {
      return this.#options.kept.hostedRecovery.registries();
    } catch {
      // A damaged index; the journal names them too.
      return [];
    }
  }

  /** Replays the hosted lines of the journal; if that fails, again in the background. */
  async #replay(isLast: boolean): Promise<void> {
    try {
      await this.#replayOnce(isLast);
    } catch (error) {
      if (this.#abort.signal.aborted || (await this.#replaceDamaged(error))) {
        throw error;
      }
      this.#logReplayFailure(error);
      this.#replaying = this.#replaying.then(() => this.#replayLater(isLast));
    }
  }

  async #replayLater(isLast: boolean): Promise<void> {
    const { signal } = this.#abort;
    const { gate } = this.#options;
    while (gate.isOn && !signal.aborted) {
      await delay(REPLAY_AGAIN_MS, undefined, { signal, ref: false }).catch(
        () => undefined,
      );
      if (signal.aborted || !gate.isOn) return;
      try {
        await this.#replayOnce(isLast);
        this.#run(() => this.#complete());
      } catch (error) {
        if (signal.aborted || (await this.#replaceDamaged(error))) return;
        this.#logReplayFailure(error);
      }
    }
  }

  async #replayOnce(isLast: boolean): Promise<void> {
    const { layout, fileSystem, clock, log, kept, journal, gate } =
      this.#options;
    const { database } = kept;
    const { signal } = this.#abort;
    const { restored, deleted, lost } = await replayHosted({
      layout,
      fileSystem,
      clock,
      journal,
      recovery: kept.hostedRecovery,
      listNames: () => hostedPages(database, signal),
      isOlder: !isLast,
      onRegistries: (registries) => gate.expect(registries),
      signal,
    });
    journal.keep(lost);
    if (lost.length > 0) {
      log.error(
        {
          lost: lost.length,
          names: lost.slice(0, MAX_LOGGED_NAMES).map(rootName),
        },
        "could not restore hosted manifests whose bytes are missing or damaged; push them again",
      );
    }
    if (restored + deleted > 0) {
      log.info(
        { restored, deleted },
        "replayed the hosted lines of the journal",
      );
    }
    // The index may have been replaced meanwhile; another run fills the new one.
    if (kept.database === database) gate.end();
  }

  #logReplayFailure(error: unknown): void {
    this.#options.log.error(
      { err: error },
      "could not replay the journal: hosted repositories are not available, retrying every 5 s",
    );
  }

  /** @returns whether the failure was a damaged index, which is replaced now */
  async #replaceDamaged(error: unknown): Promise<boolean> {
    const cause = error instanceof IndexError ? error.cause : error;
    if (!isCorruption(cause)) return false;
    await this.#options.kept.replace(cause);
    return true;
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
        const { gate } = this.#options;
        if (this.isUnfinished || gate.isOn || this.#abort.signal.aborted)
          return;
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
    await this.#replaying;
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
        : { roots: await this.#readMirrored(), rebuild }),
      signal: this.#abort.signal,
    });
    log.info(result, "index and blobs were compared");
  }

  /** Returns the lines of mirrored content; those of hosted content are replayed before. */
  async #readMirrored(): Promise<readonly JournalRoot[]> {
    const roots = await this.#options.journal.read(this.#abort.signal);
    return roots.filter(({ isHosted }) => isHosted !== true);
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
