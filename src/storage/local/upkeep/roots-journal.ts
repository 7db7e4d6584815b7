import {
  type Clock,
  type Schedule,
  scheduleUnref,
} from "../../../telemetry/clock.ts";
import type { DiskLayout } from "../root/disk-layout.ts";
import { asStorageError, type FileSystem } from "../root/file-system.ts";
import { JournalFile } from "./journal-file.ts";
import {
  completeLine,
  type JournalRoot,
  lineOf,
  parseLine,
  rootName,
} from "./journal-lines.ts";

/** A {@link JournalRoot} to record; without a time it gets the present one. */
export type RootChange = Omit<JournalRoot, "atMs"> & {
  readonly atMs: number | undefined;
  /** A digest that was just stored and may be tagged soon. */
  readonly isUnnamed?: boolean;
  /** A digest that a tag now names: cancels a pending {@link isUnnamed} line. */
  readonly isNamed?: boolean;
};

/** Lines that are synced, and whose rows may not be committed yet. */
export interface SyncedLines {
  /** Called when the index agrees with the lines: compactions need not keep them any longer. */
  settle(): void;
}

const WRITE_AFTER_MS = 1_000;
/** Bounds the pending lines while the disk rejects writes; the next compaction records dropped ones. */
const MAX_PENDING = 10_000;
/** So few roots are always rewritten, because it takes no time. */
const FEW_TAGS = 1_000;
/** The length of the shortest line of a tag; most are not much longer. */
const MIN_LINE_BYTES = 160;
/** A file this many times longer than necessary is rewritten. */
const SLACK = 3;
/** Less growth does not trigger a compaction while the mirror runs. */
const MIN_GROWTH_BYTES = 256 * 1024;
/** A line that removes a root makes two lines obsolete: an earlier one and itself. */
const REMOVAL_WEIGHT = 3;

/**
 * The journal, roots.jsonl, records what can't be restored from the blobs; see journal-lines.ts.
 *
 * Changes of mirrored content are appended in batches; only the last change of a reference within a
 * batch is written. Changes of hosted content are synced before their rows are committed.
 */
export class RootsJournal {
  readonly #file: JournalFile;
  readonly #clock: Clock;
  readonly #schedule: Schedule;
  readonly #pending = new Map<string, string>();
  /** Pending references that are cancelled if a tag names their digest. */
  readonly #unnamed = new Set<string>();
  /** Hosted lines that wait for the next append. */
  #waiting: {
    readonly text: string;
    readonly names: readonly string[];
    readonly written: PromiseWithResolvers<SyncedLines>;
  }[] = [];
  /** Hosted lines in the file whose rows may not be committed yet, in the order of the file. */
  readonly #unsettled = new Set<{ readonly text: string }>();
  /** Hosted lines that can't be restored now, by name; kept for a later start. */
  readonly #kept = new Map<string, string>();
  /** Repositories of which a line may differ from its row. */
  #doubts = 0;
  /** Whether pending changes were dropped before they were written. */
  #hasLost = false;
  #cancel: (() => void) | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #compaction: Promise<unknown> = Promise.resolve();
  readonly #onObsolete: () => void;
  /** The size of the file after the last compaction or, before one, at the first append. */
  #compactBytes: number | undefined;
  /** An upper bound of the obsolete bytes, from the lines that were appended since. */
  #grownBytes = 0;

  constructor(options: {
    readonly layout: DiskLayout;
    readonly fileSystem: FileSystem;
    readonly clock: Clock;
    readonly schedule?: Schedule;
    /** Called when half of the file may be obsolete, once until a compaction or until the file has doubled. */
    readonly onObsolete?: () => void;
  }) {
    this.#onObsolete = options.onObsolete ?? (() => undefined);
    this.#clock = options.clock;
    this.#file = new JournalFile(options.layout, options.fileSystem);
    this.#schedule = options.schedule ?? scheduleUnref;
  }

  note(change: RootChange): void {
    const reference = rootName(change);
    const atMs = change.atMs ?? this.#clock.nowMs();
    if (change.isNamed === true) {
      if (this.#unnamed.delete(reference)) this.#pending.delete(reference);
      return;
    }
    // A pending line that it replaces may itself replace a line of the file.
    if (change.isUnnamed === true && !this.#pending.has(reference)) {
      this.#unnamed.add(reference);
    } else this.#unnamed.delete(reference);
    this.#pending.delete(reference);
    this.#pending.set(reference, lineOf({ ...change, atMs }));
    if (this.#pending.size > MAX_PENDING) {
      const [oldest = ""] = this.#pending.keys();
      this.#pending.delete(oldest);
      this.#unnamed.delete(oldest);
      this.#hasLost = true;
    }
    this.#cancel ??= this.#schedule(() => {
      this.#cancel = undefined;
      void this.flush();
    }, WRITE_AFTER_MS);
  }

  /**
   * Appends lines of hosted names, and resolves after they are synced. All lines that arrive while a
   * sync runs share the next one. The caller must then write the rows, and settle the lines.
   *
   * @throws StorageError: the lines may be in the file nevertheless, so that the caller must append
   *   lines that state what the index has
   */
  appendSynced(roots: readonly JournalRoot[]): Promise<SyncedLines> {
    const lines = roots.map(lineOf);
    const invalid = lines.find((line) => parseLine(line) === undefined);
    if (invalid !== undefined) {
      return Promise.reject(
        new TypeError(`got ${invalid.trim()}; expected a line of the journal`),
      );
    }
    const written = Promise.withResolvers<SyncedLines>();
    const names = roots.map(rootName);
    this.#waiting.push({ text: lines.join(""), names, written });
    if (this.#waiting.length === 1) {
      void this.#serialize(() => this.#appendWaiting());
    }
    return written.promise;
  }

  async #appendWaiting(): Promise<void> {
    const group = this.#waiting;
    this.#waiting = [];
    const texts = group.map(({ text }) => text);
    try {
      await this.#append(texts, true);
    } catch (error) {
      const fault = asStorageError("append to the journal of roots", error);
      for (const { written } of group) written.reject(fault);
      return;
    }
    for (const { text, names, written } of group) {
      for (const name of names) this.#kept.delete(name);
      const lines = { text };
      this.#unsettled.add(lines);
      written.resolve({ settle: () => void this.#unsettled.delete(lines) });
    }
  }

  /** Whether every change is in the file, and every hosted line agrees with its row. */
  get isWhole(): boolean {
    return (
      !this.#hasLost &&
      this.#pending.size === 0 &&
      this.#waiting.length === 0 &&
      this.#unsettled.size === 0 &&
      this.#kept.size === 0 &&
      this.#doubts === 0
    );
  }

  /**
   * Keeps hosted lines whose manifests are not stored: a disk may return their bytes later, so that a
   * compaction must not drop the lines. A new line of the name replaces the kept one.
   */
  keep(roots: readonly JournalRoot[]): void {
    for (const root of roots) this.#kept.set(rootName(root), lineOf(root));
  }

  /** Records that a line may differ from its row, until the returned function is called. */
  doubt(): () => void {
    this.#doubts += 1;
    return () => {
      this.#doubts -= 1;
    };
  }

  /**
   * Returns whether to rewrite the file after a clean stop. The file then has every root. A large file
   * is rewritten only after it has grown to several times the necessary size, so that the time of a
   * start does not depend on the number of roots.
   *
   * @param tags the tags in the index
   * @param manifests the manifests in the index, each of which may be a root
   */
  async hasSlack(tags: number, manifests = 0): Promise<boolean> {
    if (tags + manifests <= FEW_TAGS) return true;
    const minBytes = tags * MIN_LINE_BYTES;
    const maxBytes = (tags + manifests) * MIN_LINE_BYTES * SLACK;
    try {
      const sizeBytes = await this.#file.sizeBytes();
      return sizeBytes < minBytes || sizeBytes > maxBytes;
    } catch {
      return true;
    }
  }

  /** Writes the pending changes. Never rejects: changes that could not be written stay pending. */
  flush(): Promise<void> {
    this.#cancel?.();
    this.#cancel = undefined;
    return this.#serialize(async () => {
      if (this.#pending.size === 0) return;
      const batch = new Map(this.#pending);
      this.#unnamed.clear();
      try {
        await this.#append([...batch.values()], false);
      } catch {
        return;
      }
      for (const [reference, line] of batch) {
        if (this.#pending.get(reference) === line) {
          this.#pending.delete(reference);
        }
      }
    });
  }

  async #append(texts: readonly string[], isSynced: boolean): Promise<void> {
    const sizeBytes = await this.#file.append(texts.join(""), isSynced);
    this.#compactBytes ??= sizeBytes;
    this.#noteGrowth(texts);
  }

  /** Each line replaces at most one line of the file; a line that removes a root is obsolete itself. */
  #noteGrowth(texts: readonly string[]): void {
    for (const text of texts) {
      this.#grownBytes +=
        text.length * (text.includes('"digest":null') ? REMOVAL_WEIGHT : 1);
    }
    const limitBytes = Math.max(this.#compactBytes ?? 0, MIN_GROWTH_BYTES);
    if (this.#grownBytes <= limitBytes) return;
    this.#grownBytes = 0;
    this.#onObsolete();
  }

  /**
   * Rewrites the file with one line for each root. Appends continue meanwhile: the new file ends with
   * the lines whose rows were not committed at the start, and with all that were appended since.
   *
   * @throws the system's errors; the file is then unchanged
   */
  async compact(pages: AsyncIterable<readonly JournalRoot[]>): Promise<void> {
    const compaction = this.#compaction.then(() => this.#compact(pages));
    this.#compaction = compaction.catch(() => undefined);
    await compaction;
    await this.flush();
  }

  async #compact(pages: AsyncIterable<readonly JournalRoot[]>): Promise<void> {
    const hadLost = this.#hasLost;
    // Changes that are dropped from now on may not be in the pages.
    this.#hasLost = false;
    try {
      const { position, unsettled } = await this.#serialize(async () => ({
        position: await this.#file.sizeBytes(),
        unsettled: [...this.#unsettled].map(({ text }) => text),
      }));
      const kept = [...this.#kept.values()];
      const texts = textsOf(this.#clock.nowMs(), pages, { kept, unsettled });
      this.#grownBytes = 0;
      this.#compactBytes = await this.#file.rewrite(texts, position, (work) =>
        this.#serialize(work),
      );
    } catch (error) {
      this.#hasLost ||= hadLost;
      throw error;
    }
  }

  /** Visits all lines of the file, some thousand at a time. @throws the system's errors */
  eachLine(
    visit: (lines: readonly string[]) => Promise<void> | void,
    signal?: AbortSignal,
  ): Promise<void> {
    return this.#file.eachLine(visit, signal);
  }

  /** Returns the last line of each reference. Invalid lines are ignored. */
  async read(signal?: AbortSignal): Promise<readonly JournalRoot[]> {
    const roots = new Map<string, JournalRoot>();
    await this.#file.eachLine((lines) => {
      for (const line of lines) keep(roots, line);
    }, signal);
    return [...roots.values()];
  }

  #serialize<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => undefined);
    return done;
  }
}

async function* textsOf(
  nowMs: number,
  pages: AsyncIterable<readonly JournalRoot[]>,
  lines: {
    readonly kept: readonly string[];
    readonly unsettled: readonly string[];
  },
): AsyncGenerator<string> {
  yield completeLine(nowMs);
  yield lines.kept.join("");
  for await (const page of pages) yield page.map(lineOf).join("");
  yield lines.unsettled.join("");
}

function keep(roots: Map<string, JournalRoot>, line: string): void {
  const root = parseLine(line);
  if (root === undefined) return;
  const reference = rootName(root);
  const known = roots.get(reference);
  if (known?.isHosted === true && root.isHosted !== true) return;
  roots.delete(reference);
  roots.set(reference, root);
}
