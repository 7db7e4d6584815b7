import { setImmediate as nextTurn } from "node:timers/promises";
import { parseJsonObject } from "../oci/json-object.ts";
import { ABSENCES, type Absence } from "../mirror/answers.ts";
import type { BlobLinks } from "../storage/blob-index.ts";
import type { KeptRecord, KeptRecords } from "../storage/kept-records.ts";
import type { TagIndex } from "../storage/tag-index.ts";
import {
  type Clock,
  type Schedule,
  scheduleUnref,
} from "../telemetry/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import { type ImageReference, parseImageText } from "./image-reference.ts";

/** A name that a client asked for and could not have. */
export interface Wish {
  /** `registry/repository:tag` or `…@digest`. */
  readonly ref: string;
  /** Of the last request. */
  readonly reason: Absence;
  /** Requests; those within ten seconds of each other count as one pull. */
  readonly count: number;
  /** RFC 3339 in UTC. */
  readonly lastAt: string;
}

export interface WishPage {
  /** In the order of their references. */
  readonly items: readonly Wish[];
  /** The `last` of the next page; null at the end. */
  readonly next: string | null;
}

export interface WishesOptions {
  readonly index: KeptRecords &
    Pick<BlobLinks, "getLinkedBlob"> &
    Pick<TagIndex, "getTag">;
  readonly clock: Pick<Clock, "nowMs">;
  readonly log: Pick<Logger, "warn">;
  readonly schedule?: Schedule;
}

interface Entry {
  reason: Absence;
  count: number;
  lastAtMs: number;
}

const MAX_WISHES = 1_000;
/** Of names that were asked for again; the others always have some room. */
const MAX_OFTEN = 900;
/** An engine sends HEAD and GET, and retries. */
const ONE_PULL_MS = 10_000;
const WRITE_EVERY_MS = 5_000;
/** While the index fails. */
const RETRY_WRITE_MS = 60_000;
const RECORDS_PER_PAGE = 500;
/** Written in one turn of the event loop. */
const RECORDS_PER_WRITE = 100;
/** Names that are compared with the index in one turn of the event loop. */
const READS_PER_TURN = 64;

/**
 * Counts the names that clients asked for and could not have. A name that was asked for once gives way
 * to newer ones before any that was asked for again, so that a client that tries many names does not
 * displace the wishes of others.
 */
export class Wishes {
  readonly #options: WishesOptions;
  readonly #schedule: Schedule;
  /** Least recently asked for first. */
  readonly #once = new Map<string, Entry>();
  readonly #often = new Map<string, Entry>();
  /** Names that have a record. */
  readonly #recorded = new Set<string>();
  /** Names whose records differ from what is counted. */
  readonly #changed = new Set<string>();
  #cancel: (() => void) | undefined;
  #loading: Promise<void> | undefined;
  #writing: Promise<void> = Promise.resolve();
  #isStopped = false;

  constructor(options: WishesOptions) {
    this.#options = options;
    this.#schedule = options.schedule ?? scheduleUnref;
  }

  /** Counts a request that was refused. Never throws and never waits. */
  note(ref: string, reason: Absence): void {
    const nowMs = this.#options.clock.nowMs();
    const earlier = this.#take(ref);
    const isSamePull =
      earlier !== undefined && Math.abs(nowMs - earlier.lastAtMs) < ONE_PULL_MS;
    this.#put(ref, {
      reason,
      count: (earlier?.count ?? 0) + (isSamePull ? 0 : 1),
      lastAtMs: nowMs,
    });
    this.#writeLater(WRITE_EVERY_MS);
  }

  /** Lists the names that are still missing. @throws IndexError */
  async list(page: {
    readonly n: number;
    readonly last: string | undefined;
  }): Promise<WishPage> {
    await this.#load();
    const refs = [...this.#once.keys(), ...this.#often.keys()]
      .filter((ref) => page.last === undefined || ref > page.last)
      .toSorted();
    const items: Wish[] = [];
    for (const [n, ref] of refs.entries()) {
      if (n % READS_PER_TURN === READS_PER_TURN - 1) await nextTurn();
      const entry = this.#find(ref);
      if (entry === undefined || (await this.#isFulfilled(ref, entry))) {
        continue;
      }
      if (items.length === page.n) {
        return { items, next: items.at(-1)?.ref ?? null };
      }
      const { reason, count, lastAtMs } = entry;
      const lastAt = new Date(lastAtMs).toISOString();
      items.push({ ref, reason, count, lastAt });
    }
    return { items, next: null };
  }

  /** Writes what is not written yet. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancel?.();
    await this.#write();
  }

  /** Removes a name that is stored by now. */
  async #isFulfilled(ref: string, { reason }: Entry): Promise<boolean> {
    const image = parseImageText(ref);
    // What is denied may be stored from before.
    if (image === undefined || reason === "denied") return false;
    if (!(await this.#isStored(image))) return false;
    this.#drop(ref);
    this.#writeLater(WRITE_EVERY_MS);
    return true;
  }

  async #isStored({ key, reference }: ImageReference): Promise<boolean> {
    const { index } = this.#options;
    const row =
      reference.kind === "tag"
        ? await index.getTag(key, reference.tag)
        : await index.getLinkedBlob(key, reference.digest);
    return row !== undefined;
  }

  #take(ref: string): Entry | undefined {
    const entry = this.#find(ref);
    this.#once.delete(ref);
    this.#often.delete(ref);
    return entry;
  }

  /** Adds a name as the most recent one. */
  #put(ref: string, entry: Entry): void {
    (entry.count > 1 ? this.#often : this.#once).set(ref, entry);
    this.#changed.add(ref);
    if (this.#once.size + this.#often.size <= MAX_WISHES) return;
    const [oldest] = (
      this.#often.size > MAX_OFTEN ? this.#often : this.#once
    ).keys();
    if (oldest === undefined) return;
    this.#drop(oldest);
  }

  #drop(ref: string): void {
    this.#take(ref);
    if (this.#recorded.has(ref)) this.#changed.add(ref);
    else this.#changed.delete(ref);
  }

  #load(): Promise<void> {
    this.#loading ??= this.#readRecords().catch((error: unknown) => {
      this.#loading = undefined;
      throw error;
    });
    return this.#loading;
  }

  /** Adds the recorded wishes to those that were counted since the start. */
  async #readRecords(): Promise<void> {
    const kept = new Map<string, Entry>();
    let last: string | undefined;
    for (;;) {
      const page = await this.#options.index.listRecords(
        "wish",
        RECORDS_PER_PAGE,
        last,
      );
      for (const record of page) {
        this.#recorded.add(record.id);
        const entry = parseRecord(record);
        if (entry === undefined) this.#changed.add(record.id);
        else kept.set(record.id, entry);
      }
      last = page.at(-1)?.id;
      if (last === undefined) break;
    }
    const counted = [...this.#once, ...this.#often];
    for (const [ref] of counted) this.#take(ref);
    const byTime = [...kept].toSorted(
      ([, one], [, other]) => one.lastAtMs - other.lastAtMs,
    );
    for (const [ref, entry] of byTime) this.#put(ref, entry);
    // They agree with their records, as far as they are still there.
    for (const [ref] of byTime) {
      if (this.#find(ref) !== undefined) this.#changed.delete(ref);
    }
    for (const [ref, entry] of counted) {
      const earlier = this.#take(ref)?.count ?? 0;
      this.#put(ref, { ...entry, count: earlier + entry.count });
    }
  }

  #writeLater(delayMs: number): void {
    if (this.#isStopped) return;
    this.#cancel ??= this.#schedule(() => {
      this.#cancel = undefined;
      void this.#write();
    }, delayMs);
  }

  /** Never rejects. */
  #write(): Promise<void> {
    this.#writing = this.#writing.then(() => this.#writeChanges());
    return this.#writing;
  }

  async #writeChanges(): Promise<void> {
    if (this.#changed.size === 0) return;
    try {
      await this.#load();
      for (;;) {
        const batch = [...this.#changed].slice(0, RECORDS_PER_WRITE);
        if (batch.length === 0) return;
        await this.#writeBatch(batch);
        await nextTurn();
      }
    } catch (error) {
      this.#options.log.warn({ err: error }, "could not record refused names");
      this.#writeLater(RETRY_WRITE_MS);
    }
  }

  async #writeBatch(batch: readonly string[]): Promise<void> {
    const put: KeptRecord[] = [];
    const drop: string[] = [];
    for (const ref of batch) {
      const entry = this.#find(ref);
      if (entry === undefined) drop.push(ref);
      else put.push({ id: ref, text: JSON.stringify(entry) });
      // Changes during the write are written again.
      this.#changed.delete(ref);
    }
    try {
      await this.#options.index.writeRecords("wish", put, drop);
    } catch (error) {
      for (const ref of batch) this.#changed.add(ref);
      throw error;
    }
    for (const { id } of put) this.#recorded.add(id);
    for (const ref of drop) this.#recorded.delete(ref);
  }

  #find(ref: string): Entry | undefined {
    return this.#once.get(ref) ?? this.#often.get(ref);
  }
}

/** @returns undefined if this version does not read the record */
function parseRecord({ id, text }: KeptRecord): Entry | undefined {
  const fields = parseJsonObject(text);
  const reason = ABSENCES.find((each) => each === fields?.get("reason"));
  const count = fields?.get("count");
  const lastAtMs = fields?.get("lastAtMs");
  return parseImageText(id) !== undefined &&
    reason !== undefined &&
    typeof count === "number" &&
    Number.isSafeInteger(count) &&
    count > 0 &&
    typeof lastAtMs === "number" &&
    !Number.isNaN(new Date(lastAtMs).getTime())
    ? { reason, count, lastAtMs }
    : undefined;
}
