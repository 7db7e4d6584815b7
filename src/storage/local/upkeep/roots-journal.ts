import { constants } from "node:fs";
import { type Digest, parseDigest } from "../../../oci/digest.ts";
import {
  parseReference,
  parseRepositoryName,
  type Reference,
  referenceText,
  type RepositoryKey,
} from "../../../oci/reference.ts";
import { isMediaType } from "../../../oci/media-type.ts";
import {
  type Clock,
  type Schedule,
  scheduleUnref,
} from "../../../telemetry/clock.ts";
import type { DiskLayout } from "../root/disk-layout.ts";
import { type FileSystem, systemCode } from "../root/file-system.ts";
import { syncFolder } from "../blobs/blob-files.ts";

/*
 * root/roots.jsonl is the insurance of the index: what no blob can tell. A line for each tag that
 * changes; the last line of a reference counts, one without a digest says that the tag is gone:
 *
 * {"ref":"docker.io/library/alpine:3.20","digest":"sha256:…","mediaType":"application/…","time":"2026-10-07T12:30:05.000Z"}
 *
 * A pinned one has `"pinned":true`, without a digest where its manifest was lost. A digest that was
 * pulled by name, that a tag has left, or that is pinned has a line of its own,
 * `"ref":"docker.io/library/alpine@sha256:…"`. One that a tag or an index names as well may have an
 * old line: it is a root again only where nothing else names it. Readers of the forms without pins
 * or digests pass them over: a member they do not know, and a reference they can't read.
 */

/** What a tag points to since a moment, or a digest that is a root by itself. */
export interface JournalRoot {
  readonly key: RepositoryKey;
  readonly reference: Reference;
  /** Undefined: the root is gone; pinned all the same: its manifest was lost. */
  readonly digest: Digest | undefined;
  readonly mediaType: string | undefined;
  readonly isPinned: boolean;
  readonly atMs: number;
}

/** As {@link JournalRoot}; the time is now where it is not told. */
export type RootChange = Omit<JournalRoot, "atMs"> & {
  readonly atMs: number | undefined;
  /** A digest that was just stored: its tag may follow in a moment. */
  readonly isUnnamed?: boolean;
  /** A digest that a tag names now: a line for {@link isUnnamed} that was not written yet never is. */
  readonly isNamed?: boolean;
};

const WRITE_AFTER_MS = 1_000;
/** Tags that wait while the disk takes nothing; beyond it the oldest are left to the next compaction. */
const MAX_WAITING = 10_000;
/** Of so few tags the file is written anew in a moment. */
const FEW_TAGS = 1_000;
/** No line of a tag is shorter; most are not much longer. */
const LEAST_LINE_BYTES = 160;
/** A file that is so much longer than its tags need is worth the work. */
const SLACK = 3;
const READ_BYTES = 256 * 1024;
/** A file that has grown by less is not worth the work while the mirror runs. */
const LEAST_GROWTH_BYTES = 256 * 1024;
/** A line that ends a root makes two obsolete, so that a third of the file in such lines is half of it. */
const END_WEIGHT = 3;
/** No line of ours is longer. */
const MAX_LINE_LENGTH = 4_096;
const { O_RDONLY, O_WRONLY, O_CREAT, O_APPEND, O_TRUNC, O_NOFOLLOW } =
  constants;

/** Appends in batches; a tag that changes again before the batch is written counts once. */
export class RootsJournal {
  readonly #layout: DiskLayout;
  readonly #fileSystem: FileSystem;
  readonly #clock: Clock;
  readonly #schedule: Schedule;
  readonly #waiting = new Map<string, string>();
  /** Those of them that are not needed once a tag names their digest. */
  readonly #unnamed = new Set<string>();
  /** A crash may have cut the last line. */
  #isFirstAppend = true;
  /** Changes were dropped from memory before they were written. */
  #hasLost = false;
  #cancel: (() => void) | undefined;
  #turn: Promise<void> = Promise.resolve();
  readonly #onObsolete: () => void;
  /** Of the file after the last compaction; before it, at the first append. */
  #compactBytes: number | undefined;
  /** As many of the file's as were appended since may be obsolete. */
  #grownBytes = 0;

  constructor(options: {
    readonly layout: DiskLayout;
    readonly fileSystem: FileSystem;
    readonly clock: Clock;
    readonly schedule?: Schedule;
    /** Called when half of the file may be obsolete, once until it was compacted or has doubled. */
    readonly onObsolete?: () => void;
  }) {
    this.#onObsolete = options.onObsolete ?? (() => undefined);
    this.#clock = options.clock;
    this.#layout = options.layout;
    this.#fileSystem = options.fileSystem;
    this.#schedule = options.schedule ?? scheduleUnref;
  }

  note(change: RootChange): void {
    const reference = referenceOf(change);
    const atMs = change.atMs ?? this.#clock.nowMs();
    if (change.isNamed === true) {
      if (this.#unnamed.delete(reference)) this.#waiting.delete(reference);
      return;
    }
    // What it replaces may undo a line of the file.
    if (change.isUnnamed === true && !this.#waiting.has(reference)) {
      this.#unnamed.add(reference);
    } else this.#unnamed.delete(reference);
    this.#waiting.delete(reference);
    this.#waiting.set(reference, lineOf({ ...change, atMs }));
    if (this.#waiting.size > MAX_WAITING) {
      const [oldest = ""] = this.#waiting.keys();
      this.#waiting.delete(oldest);
      this.#unnamed.delete(oldest);
      this.#hasLost = true;
    }
    this.#cancel ??= this.#schedule(() => {
      this.#cancel = undefined;
      void this.flush();
    }, WRITE_AFTER_MS);
  }

  /** Every change that was noted is in the file. */
  get isWhole(): boolean {
    return !this.#hasLost && this.#waiting.size === 0;
  }

  /**
   * Whether the file should be written again after a clean stop. It has every root then, so that a
   * large one is left alone until it has grown to several times what its roots need: a start must not
   * cost more the more of them there are.
   *
   * @param tags of the index
   * @param manifests of the index, each of which may be a root by itself
   */
  async hasSlack(tags: number, manifests = 0): Promise<boolean> {
    if (tags + manifests <= FEW_TAGS) return true;
    const leastBytes = tags * LEAST_LINE_BYTES;
    const mostBytes = (tags + manifests) * LEAST_LINE_BYTES * SLACK;
    try {
      const { sizeBytes } = await this.#fileSystem.statPath(
        this.#layout.rootsFile,
      );
      return sizeBytes < leastBytes || sizeBytes > mostBytes;
    } catch {
      return true;
    }
  }

  /** Writes what waits. Never rejects: what could not be written waits for the next time. */
  flush(): Promise<void> {
    this.#cancel?.();
    this.#cancel = undefined;
    return this.#inTurn(async () => {
      if (this.#waiting.size === 0) return;
      const batch = new Map(this.#waiting);
      this.#unnamed.clear();
      try {
        await this.#append([...batch.values()]);
      } catch {
        return;
      }
      for (const [reference, line] of batch) {
        if (this.#waiting.get(reference) === line) {
          this.#waiting.delete(reference);
        }
      }
      this.#noteGrowth(batch.values());
    });
  }

  /** Each line replaces one of the file at most, and one that ends a root is obsolete itself. */
  #noteGrowth(lines: Iterable<string>): void {
    for (const line of lines) {
      this.#grownBytes +=
        line.length * (line.includes('"digest":null') ? END_WEIGHT : 1);
    }
    const limitBytes = Math.max(this.#compactBytes ?? 0, LEAST_GROWTH_BYTES);
    if (this.#grownBytes <= limitBytes) return;
    this.#grownBytes = 0;
    this.#onObsolete();
  }

  /**
   * Writes the file anew with one line a tag; changes that come meanwhile are appended after.
   *
   * @throws the system's errors; the file is then as it was
   */
  async compact(pages: AsyncIterable<readonly JournalRoot[]>): Promise<void> {
    let failure: unknown;
    await this.#inTurn(async () => {
      const hadLost = this.#hasLost;
      // What is dropped from now on may have been read already.
      this.#hasLost = false;
      try {
        this.#compactBytes = await this.#rewrite(pages);
        this.#grownBytes = 0;
      } catch (error) {
        this.#hasLost ||= hadLost;
        failure = error;
      }
    });
    if (failure !== undefined) throw failure;
    await this.flush();
  }

  /** The last line of each reference. Lines that are no such lines are passed over. */
  async read(signal?: AbortSignal): Promise<readonly JournalRoot[]> {
    const roots = new Map<string, JournalRoot>();
    let fd: number;
    try {
      fd = await this.#fileSystem.open(
        this.#layout.rootsFile,
        O_RDONLY | O_NOFOLLOW,
      );
    } catch (error) {
      if (systemCode(error) === "ENOENT") return [];
      throw error;
    }
    try {
      const buffer = Buffer.allocUnsafe(READ_BYTES);
      let rest = "";
      for (let position = 0; ;) {
        signal?.throwIfAborted();
        const length = await this.#fileSystem.read(
          fd,
          buffer,
          0,
          READ_BYTES,
          position,
        );
        if (length === 0) break;
        position += length;
        // Lines are ASCII: references, digests and media types hold nothing else.
        const lines = (rest + buffer.toString("latin1", 0, length)).split("\n");
        rest = (lines.pop() ?? "").slice(0, MAX_LINE_LENGTH);
        for (const line of lines) keep(roots, line);
      }
      keep(roots, rest);
    } finally {
      await this.#fileSystem.close(fd).catch(() => undefined);
    }
    return [...roots.values()];
  }

  async #append(lines: readonly string[]): Promise<void> {
    const text = (this.#isFirstAppend ? "\n" : "") + lines.join("");
    const fd = await this.#fileSystem.open(
      this.#layout.rootsFile,
      O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW,
    );
    try {
      this.#compactBytes ??= (await this.#fileSystem.stat(fd)).sizeBytes;
      // A batch that was cut is written again in full after a line's end.
      this.#isFirstAppend = true;
      await this.#writeAll(fd, text, 0);
      this.#isFirstAppend = false;
    } finally {
      await this.#fileSystem.close(fd).catch(() => undefined);
    }
  }

  /** @returns the file's size */
  async #rewrite(
    pages: AsyncIterable<readonly JournalRoot[]>,
  ): Promise<number> {
    const path = this.#layout.temporaryFile("roots", 0);
    const fd = await this.#fileSystem.open(
      path,
      O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW,
    );
    try {
      let position = 0;
      try {
        for await (const page of pages) {
          const text = page.map(lineOf).join("");
          position += await this.#writeAll(fd, text, position);
        }
        await this.#fileSystem.fdatasync(fd);
      } finally {
        await this.#fileSystem.close(fd).catch(() => undefined);
      }
      await this.#fileSystem.rename(path, this.#layout.rootsFile);
      await syncFolder(this.#fileSystem, this.#layout.root);
      this.#isFirstAppend = false;
      return position;
    } catch (error) {
      await this.#fileSystem.unlink(path).catch(() => undefined);
      throw error;
    }
  }

  async #writeAll(fd: number, text: string, position: number): Promise<number> {
    const bytes = Buffer.from(text, "latin1");
    for (let done = 0; done < bytes.length;) {
      const written = await this.#fileSystem.writev(
        fd,
        [bytes.subarray(done)],
        position + done,
      );
      if (written === 0) throw new Error("nothing was written");
      done += written;
    }
    return bytes.length;
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    this.#turn = this.#turn.then(work);
    return this.#turn;
  }
}

function referenceOf({
  key,
  reference,
}: Pick<JournalRoot, "key" | "reference">): string {
  const separator = reference.kind === "tag" ? ":" : "@";
  return `${key.upstream}/${key.repository}${separator}${referenceText(reference)}`;
}

function lineOf(root: JournalRoot): string {
  const { digest, mediaType, isPinned, atMs } = root;
  return `${JSON.stringify({
    ref: referenceOf(root),
    digest: digest ?? null,
    ...(digest === undefined ? {} : { mediaType }),
    ...(isPinned ? { pinned: true } : {}),
    time: new Date(atMs).toISOString(),
  })}\n`;
}

function keep(roots: Map<string, JournalRoot>, line: string): void {
  const root = parseLine(line);
  if (root === undefined) return;
  const reference = referenceOf(root);
  roots.delete(reference);
  roots.set(reference, root);
}

function parseLine(line: string): JournalRoot | undefined {
  if (line.length > MAX_LINE_LENGTH || !line.startsWith("{")) return undefined;
  let value: Readonly<Record<string, unknown>>;
  try {
    value = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return undefined;
  }
  const { ref, digest, mediaType, pinned, time } = value;
  if (typeof ref !== "string" || typeof time !== "string") return undefined;
  const named = parseRoot(ref);
  const atMs = Date.parse(time);
  if (named === undefined || Number.isNaN(atMs)) return undefined;
  const isPinned = pinned === true;
  if (digest === null) {
    return {
      ...named,
      digest: undefined,
      mediaType: undefined,
      isPinned,
      atMs,
    };
  }
  const parsed = typeof digest === "string" ? parseDigest(digest) : undefined;
  if (
    parsed === undefined ||
    typeof mediaType !== "string" ||
    !isMediaType(mediaType)
  ) {
    return undefined;
  }
  return { ...named, digest: parsed, mediaType, isPinned, atMs };
}

function parseRoot(
  text: string,
): Pick<JournalRoot, "key" | "reference"> | undefined {
  const slash = text.indexOf("/");
  const at = text.indexOf("@");
  const end = at === -1 ? text.lastIndexOf(":") : at;
  const repository = parseRepositoryName(text.slice(slash + 1, end));
  const reference = parseReference(text.slice(end + 1));
  const isKind = reference?.kind === (at === -1 ? "tag" : "digest");
  if (slash < 1 || repository === undefined || !isKind) return undefined;
  return { key: { upstream: text.slice(0, slash), repository }, reference };
}
