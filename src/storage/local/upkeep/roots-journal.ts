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
 * The journal, roots.jsonl, records what can't be restored from the blobs. It has one line for each
 * change of a tag. The last line of a reference is valid; a line without a digest removes the tag:
 *
 * {"ref":"docker.io/library/alpine:3.20","digest":"sha256:…","mediaType":"application/…","time":"2026-10-07T12:30:05.000Z"}
 *
 * A pinned root has `"pinned":true`, without a digest if its manifest was lost. A digest that was
 * requested directly, that a tag pointed to before, or that is pinned has its own line,
 * `"ref":"docker.io/library/alpine@sha256:…"`. An old line may remain for a digest that a tag or an
 * index names; it is then a root only if nothing else names it. Older versions, which know neither pins
 * nor digests, ignore the unknown member and the line that they can't parse.
 */

/** A tag with its digest, or a digest that is a root. */
export interface JournalRoot {
  readonly key: RepositoryKey;
  readonly reference: Reference;
  /** Undefined if the root was removed or, with a pin, if its manifest was lost. */
  readonly digest: Digest | undefined;
  readonly mediaType: string | undefined;
  readonly isPinned: boolean;
  readonly atMs: number;
}

/** A {@link JournalRoot} to record; without a time it gets the present one. */
export type RootChange = Omit<JournalRoot, "atMs"> & {
  readonly atMs: number | undefined;
  /** A digest that was just stored and may be tagged soon. */
  readonly isUnnamed?: boolean;
  /** A digest that a tag now names: cancels a pending {@link isUnnamed} line. */
  readonly isNamed?: boolean;
};

const WRITE_AFTER_MS = 1_000;
/** Bounds the pending lines while the disk rejects writes; the next compaction records dropped ones. */
const MAX_PENDING = 10_000;
/** So few roots are always rewritten, because it takes no time. */
const FEW_TAGS = 1_000;
/** The length of the shortest line of a tag; most are not much longer. */
const MIN_LINE_BYTES = 160;
/** A file this many times longer than necessary is rewritten. */
const SLACK = 3;
const READ_BYTES = 256 * 1024;
/** Less growth does not trigger a compaction while the mirror runs. */
const MIN_GROWTH_BYTES = 256 * 1024;
/** A line that removes a root makes two lines obsolete: an earlier one and itself. */
const REMOVAL_WEIGHT = 3;
/** Longer lines are not ours. */
const MAX_LINE_LENGTH = 4_096;
const { O_RDONLY, O_WRONLY, O_CREAT, O_APPEND, O_TRUNC, O_NOFOLLOW } =
  constants;

/** Appends changes in batches; only the last change of a reference within a batch is written. */
export class RootsJournal {
  readonly #layout: DiskLayout;
  readonly #fileSystem: FileSystem;
  readonly #clock: Clock;
  readonly #schedule: Schedule;
  readonly #pending = new Map<string, string>();
  /** Pending references that are cancelled if a tag names their digest. */
  readonly #unnamed = new Set<string>();
  /** The next append starts a new line, because a crash may have cut the last one. */
  #isFirstAppend = true;
  /** Whether pending changes were dropped before they were written. */
  #hasLost = false;
  #cancel: (() => void) | undefined;
  #turn: Promise<void> = Promise.resolve();
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
    this.#layout = options.layout;
    this.#fileSystem = options.fileSystem;
    this.#schedule = options.schedule ?? scheduleUnref;
  }

  note(change: RootChange): void {
    const reference = referenceOf(change);
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

  /** Whether every change is in the file. */
  get isWhole(): boolean {
    return !this.#hasLost && this.#pending.size === 0;
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
      const { sizeBytes } = await this.#fileSystem.statPath(
        this.#layout.rootsFile,
      );
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
        await this.#append([...batch.values()]);
      } catch {
        return;
      }
      for (const [reference, line] of batch) {
        if (this.#pending.get(reference) === line) {
          this.#pending.delete(reference);
        }
      }
      this.#noteGrowth(batch.values());
    });
  }

  /** Each line replaces at most one line of the file; a line that removes a root is obsolete itself. */
  #noteGrowth(lines: Iterable<string>): void {
    for (const line of lines) {
      this.#grownBytes +=
        line.length * (line.includes('"digest":null') ? REMOVAL_WEIGHT : 1);
    }
    const limitBytes = Math.max(this.#compactBytes ?? 0, MIN_GROWTH_BYTES);
    if (this.#grownBytes <= limitBytes) return;
    this.#grownBytes = 0;
    this.#onObsolete();
  }

  /**
   * Rewrites the file with one line for each root. Changes during the compaction are appended afterwards.
   *
   * @throws the system's errors; the file is then unchanged
   */
  async compact(pages: AsyncIterable<readonly JournalRoot[]>): Promise<void> {
    let failure: unknown;
    await this.#serialize(async () => {
      const hadLost = this.#hasLost;
      // Changes that are dropped from now on may not be in the pages.
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

  /** Returns the last line of each reference. Invalid lines are ignored. */
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
      // If the write is cut, the whole batch is written again after a line break.
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
      if (written === 0)
        throw new Error("got 0 bytes written; expected progress");
      done += written;
    }
    return bytes.length;
  }

  #serialize(work: () => Promise<void>): Promise<void> {
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
