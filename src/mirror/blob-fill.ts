import { setTimeout as delay } from "node:timers/promises";
import type { BlobReader, PartialBlob } from "../cache/blob-store.ts";
import type { ContentHash } from "../cache/content-hash.ts";
import type { Digest } from "../oci/digest.ts";
import type { OpenBlobOptions, UpstreamBlob } from "../upstream/client.ts";
import { UpstreamError } from "../upstream/errors.ts";
import { BrokenBody } from "./body.ts";
import { ChunkWindow } from "./chunk-window.ts";
import { FillReader } from "./fill-reader.ts";
import { chooseResume } from "./fill-resume.ts";

/**
 * The last bytes of a blob that no reader gets before the digest and the size are right: without
 * them no client can take a wrong body for a complete one.
 */
export const TAIL_BYTES = 64 * 1024;

/** A write of some MiB costs less CPU a byte than one for each chunk. */
const WRITE_BYTES = 4 * 1024 * 1024;

/** No blob is larger; only bodies of unknown length ever meet it. */
const MAX_BLOB_BYTES = 64 * 1024 ** 3;

/** What is known once the upstream's headers are in. */
export interface FillHead {
  /** Of the whole blob; undefined where neither the upstream nor a descriptor told. */
  readonly sizeBytes: number | undefined;
  /** The upstream's status: 200, or 206 where an earlier partial is continued. */
  readonly status: number;
}

/**
 * - `stored`: verified and published
 * - `passed`: verified, but the storage did not take it
 * - `mismatch`: the bytes are not those of the digest
 * - `broken`: the upstream failed for good; what came is kept for the next fill
 * - `suspended`: ended by us; what came is kept
 * - `refused`: what an earlier fill left is no part of the upstream's blob; it is thrown away
 */
export type FillOutcome =
  "stored" | "passed" | "mismatch" | "broken" | "suspended" | "refused";

/** The bytes that an earlier fill left can't be continued: a fill from the first byte may work. */
export class PartialRefused extends Error {
  constructor(options?: { cause?: unknown }) {
    super("the partial blob can't be continued", options);
    this.name = "PartialRefused";
  }
}

export interface FillEnd {
  readonly outcome: FillOutcome;
  readonly sizeBytes: number;
  readonly resumes: number;
  /** Endpoints that gave bytes of this fill. */
  readonly endpoints: ReadonlySet<string>;
  readonly error: unknown;
}

/** Where the bytes go: to a partial blob, or nowhere, continuing a hash of the `offset` bytes before. */
export type FillStorage =
  | { readonly kind: "partial"; readonly partial: PartialBlob }
  | {
      readonly kind: "none";
      readonly hash: ContentHash;
      readonly offset: number;
    };

export interface FillOptions {
  readonly digest: Digest;
  /** What a descriptor says; the upstream's own length wins. */
  readonly expectedBytes: number | undefined;
  readonly storage: FillStorage;
  /** Endpoints to be asked last, because they gave wrong bytes. */
  readonly avoid: ReadonlySet<string>;
  /** How long to wait for the first headers, queueing included. */
  readonly headersTimeoutMs: number;
  /** Bytes of the newest chunks that are held in memory. */
  readonly windowBytes: number;
  open(options: OpenBlobOptions): Promise<UpstreamBlob>;
  /** A hash for bytes that are not stored. */
  createHash(): ContentHash;
  /** Writes the index row; the fill can be joined until it resolves. */
  onVerified(sizeBytes: number, publish: () => Promise<void>): Promise<void>;
  onResume(): void;
  /** The storage failed: from here on the bytes are passed through. */
  onDegraded(error: unknown): void;
}

/**
 * One upstream body on its way into the cache, and any number of readers that follow it from the
 * first byte, each at its own pace. It belongs to none of them: it goes on when they leave.
 *
 * The newest bytes are held in a window in memory; the writer stores them in large writes, a hash
 * follows what was stored. Readers at the head are served from the window, readers behind it from
 * the partial file. The upstream is paced by the storage alone. When the storage fails the fill
 * passes the bytes through: paced by its fastest reader, and a reader that falls out of the window
 * continues with a body of its own ({@link continuation}), verified like any other.
 */
export class BlobFill {
  readonly digest: Digest;
  /** Rejects when the upstream gave no body; then nobody was promised anything. */
  readonly head: Promise<FillHead>;
  /** Resolves when the blob is in the index, or will not come. Never rejects. */
  readonly ended: Promise<FillEnd>;

  readonly #options: FillOptions;
  readonly #abort = new AbortController();
  readonly #readers = new Set<FillReader>();
  readonly #endpoints = new Set<string>();
  readonly #avoid: Set<string>;
  readonly #window: ChunkWindow;
  readonly #partial: PartialBlob | undefined;
  readonly #hash: ContentHash;
  #waiters: (() => void)[] = [];
  #headIn: PromiseWithResolvers<FillHead> = Promise.withResolvers();
  #sizeBytes: number | undefined;
  #isHeadIn = false;
  #isVerified = false;
  #isOver = false;
  #failure: Error | undefined;
  /** The hash of what was stored when the storage failed: where continuations start from. */
  #passedFrom: { offset: number; hash: ContentHash } | undefined;
  #writing: Promise<void> | undefined;
  #paused: { resume(): unknown } | undefined;
  #file: Promise<BlobReader> | undefined;
  #resumes = 0;
  #isSuspending = false;
  #isWaking = false;

  constructor(options: FillOptions) {
    this.#options = options;
    this.digest = options.digest;
    this.#avoid = new Set(options.avoid);
    this.#sizeBytes = options.expectedBytes;
    const { storage } = options;
    if (storage.kind === "partial") {
      this.#partial = storage.partial;
      this.#hash = storage.partial.hash;
      this.#window = new ChunkWindow(storage.partial.writtenBytes);
    } else {
      this.#hash = storage.hash;
      this.#window = new ChunkWindow(storage.offset);
      this.#passedFrom = { offset: storage.offset, hash: storage.hash.fork() };
    }
    this.head = this.#headIn.promise;
    // Whoever waits for it sees the rejection; when nobody does it is no fault of the process.
    this.head.catch(() => {});
    this.ended = this.#run();
  }

  get hasReaders(): boolean {
    return this.#readers.size > 0;
  }

  /** Whether a new reader will get all it asks for, as far as is known. */
  get isJoinable(): boolean {
    return !this.#isOver && this.#failure === undefined;
  }

  /** Whether the bytes go into the cache, as far as is known. */
  get isStored(): boolean {
    return this.#passedFrom === undefined;
  }

  /** Position after the newest byte that came. */
  get receivedBytes(): number {
    return this.#window.end;
  }

  /** @returns a reader of the whole blob; {@link FillReader.setRange} narrows it */
  openReader(): FillReader {
    const reader = new FillReader(this);
    this.#readers.add(reader);
    return reader;
  }

  /** Ends the fill and keeps what came; its readers are cut off. */
  async suspend(): Promise<void> {
    this.#isSuspending = true;
    this.#abort.abort(new BrokenBody("the fill was suspended"));
    this.#resumeBody();
    await this.ended;
  }

  // --- what a reader needs -------------------------------------------------------------------

  /** Position after the last byte that a reader may have now. */
  get readableEnd(): number {
    if (this.#isVerified) return this.#window.end;
    const end = this.#sizeBytes ?? this.#window.end;
    return Math.min(this.#window.end, Math.max(0, end - TAIL_BYTES));
  }

  get sizeBytes(): number | undefined {
    return this.#sizeBytes;
  }

  get isVerified(): boolean {
    return this.#isVerified;
  }

  /** Set when no more bytes will come. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Bytes from the window, or undefined where the position has left it. */
  fromWindow(
    position: number,
    limit: number,
    maxBytes: number,
  ): Buffer[] | undefined {
    return position < this.#window.start
      ? undefined
      : this.#window.slice(position, limit, maxBytes);
  }

  /** Position after the last byte that can be read back from the storage. */
  get storedEnd(): number {
    return this.#partial?.writtenBytes ?? 0;
  }

  /** The partial file, opened once for all readers. */
  openFile(): Promise<BlobReader> {
    this.#file ??=
      this.#partial === undefined
        ? Promise.reject(new BrokenBody("nothing is stored"))
        : this.#partial.openReader();
    return this.#file;
  }

  /**
   * A body of its own for a reader that neither the window nor the storage can serve any more.
   * It starts where the storage ended, or at the first byte where the storage can't be read, so
   * that its own hash covers every byte before the end.
   */
  continuation(position: number): BlobFill {
    const from = this.#passedFrom;
    return new BlobFill({
      ...this.#options,
      expectedBytes: this.#sizeBytes,
      avoid: this.#avoid,
      storage:
        from === undefined || position < from.offset
          ? { kind: "none", hash: this.#options.createHash(), offset: 0 }
          : { kind: "none", hash: from.hash.fork(), offset: from.offset },
      onVerified: async () => {},
    });
  }

  /** Resolves when something changed. */
  changed(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  onReaderProgress(): void {
    if (this.#passedFrom !== undefined && !this.#isOver) this.#trim();
  }

  onReaderClosed(reader: FillReader): void {
    if (!this.#readers.delete(reader)) return;
    this.#wake();
    if (this.#readers.size > 0) return;
    if (this.#isOver) this.#release();
    else if (this.#passedFrom !== undefined) {
      // Nothing is stored and nobody reads: the bytes would go nowhere.
      this.#abort.abort(new BrokenBody("nobody reads"));
      this.#resumeBody();
    }
  }

  // --- the download ----------------------------------------------------------------------------

  async #run(): Promise<FillEnd> {
    let outcome: FillOutcome = "broken";
    let error: unknown;
    try {
      await this.#download();
      outcome = await this.#publish();
    } catch (caught) {
      error = caught;
      outcome = this.#isSuspending ? "suspended" : outcomeOf(caught);
      await this.#fail(caught, outcome);
    }
    this.#isOver = true;
    this.#hash.close();
    if (this.#readers.size === 0) this.#release();
    this.#wake();
    return {
      outcome,
      sizeBytes: this.#window.end,
      resumes: this.#resumes,
      endpoints: this.#endpoints,
      error,
    };
  }

  async #download(): Promise<void> {
    let fruitless = 0;
    let dials = 0;
    for (;;) {
      const before = this.#window.end;
      let endpoint: string | undefined;
      try {
        const upstream = await this.#open();
        endpoint = upstream.endpoint;
        this.#endpoints.add(endpoint);
        await this.#consume(upstream);
        await this.#verify();
        return;
      } catch (error) {
        const received = this.#window.end - before;
        fruitless = received >= TAIL_BYTES ? 1 : fruitless + 1;
        dials++;
        const delayMs = this.#isHeadIn
          ? chooseResume(error, {
              fruitless,
              dials,
              hasReaders: this.hasReaders,
            })
          : undefined;
        if (delayMs === undefined || this.#abort.signal.aborted) throw error;
        if (endpoint !== undefined) this.#avoid.add(endpoint);
        await this.#pause(delayMs);
        this.#resumes++;
        this.#options.onResume();
      }
    }
  }

  /** Asks for the bytes that are missing. */
  async #open(): Promise<UpstreamBlob> {
    if (this.#isHeadIn) return this.#dial(this.#abort.signal);
    const deadline = AbortSignal.timeout(this.#options.headersTimeoutMs);
    const waiting = new AbortController();
    const onAbort = () => waiting.abort(this.#abort.signal.reason);
    const onDeadline = () => waiting.abort(deadline.reason);
    this.#abort.signal.addEventListener("abort", onAbort);
    deadline.addEventListener("abort", onDeadline);
    try {
      const upstream = await this.#dial(waiting.signal);
      this.#sizeBytes = upstream.sizeBytes ?? this.#sizeBytes;
      this.#isHeadIn = true;
      this.#headIn.resolve({
        sizeBytes: this.#sizeBytes,
        status: upstream.status,
      });
      return upstream;
    } finally {
      deadline.removeEventListener("abort", onDeadline);
    }
  }

  async #dial(signal: AbortSignal): Promise<UpstreamBlob> {
    const upstream = await this.#options
      .open({ offset: this.#offset(), avoid: this.#avoid, signal })
      .catch((error: unknown) => {
        throw this.#isHeadIn ? error : withoutPartial(error, this.#window.end);
      });
    const size = this.#isHeadIn ? this.#sizeBytes : undefined;
    if (
      (size !== undefined &&
        upstream.sizeBytes !== undefined &&
        upstream.sizeBytes !== size) ||
      (upstream.sizeBytes ?? Infinity) < this.#window.end ||
      upstream.offset > this.#window.end
    ) {
      upstream.body.destroy();
      this.#avoid.add(upstream.endpoint);
      const error = new UpstreamError(
        "bad-response",
        "the upstream resumed with another length",
        { upstream: upstream.endpoint },
      );
      throw this.#isHeadIn ? error : withoutPartial(error, this.#window.end);
    }
    this.#sizeBytes ??= upstream.sizeBytes;
    return upstream;
  }

  /**
   * The first byte to ask for. The last byte that is here is asked for again where nothing may be
   * missing: a range that starts after the end would be refused, and the answer tells the length.
   */
  #offset(): number {
    const have = this.#window.end;
    const size = this.#sizeBytes;
    return have === 0 || (size !== undefined && have < size) ? have : have - 1;
  }

  /** Takes the body's bytes in; resolves at its end or at the last byte of a known size. */
  #consume(upstream: UpstreamBlob): Promise<void> {
    const { body } = upstream;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    let skipBytes = this.#window.end - upstream.offset;
    let isDone = false;
    const finish = (settle: () => void) => {
      isDone = true;
      this.#paused = undefined;
      settle();
    };
    body.on("data", (chunk: Buffer) => {
      if (isDone) {
        body.destroy();
        return;
      }
      let bytes = chunk;
      if (skipBytes > 0) {
        const skipped = Math.min(skipBytes, chunk.length);
        skipBytes -= skipped;
        if (skipped === chunk.length) return;
        bytes = chunk.subarray(skipped);
      }
      const end = this.#window.end + bytes.length;
      if (end > (this.#sizeBytes ?? MAX_BLOB_BYTES)) {
        const error = mismatch(upstream.endpoint, "more bytes than announced");
        finish(() => reject(error));
        body.destroy();
        return;
      }
      this.#window.push(bytes);
      if (this.#passedFrom === undefined) this.#startWriter();
      else this.#hash.update(bytes);
      this.#trim();
      this.#wakeSoon();
      if (end === this.#sizeBytes) finish(resolve);
      else if (this.#window.costBytes > this.#options.windowBytes) {
        body.pause();
        this.#paused = body;
      }
    });
    body.on("end", () => finish(resolve));
    body.on("error", (error) => finish(() => reject(error)));
    body.on("close", () =>
      finish(() =>
        reject(
          new UpstreamError("interrupted", "the body ended early", {
            upstream: upstream.endpoint,
          }),
        ),
      ),
    );
    return promise;
  }

  /** @throws UpstreamError `interrupted` where more may come, `digest-mismatch` where none will help */
  async #verify(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
    if (this.#abort.signal.aborted) throw this.#abort.signal.reason;
    const size = this.#sizeBytes;
    const have = this.#window.end;
    const [endpoint = ""] = [...this.#endpoints].slice(-1);
    if (size !== undefined && have < size) {
      throw new UpstreamError("interrupted", "the body ended early", {
        upstream: endpoint,
      });
    }
    const actual = await this.#hash.digest();
    if (actual !== this.digest) {
      // Without a length the end of the connection proves nothing: only the digest does.
      if (size === undefined) {
        throw new UpstreamError(
          "interrupted",
          "the body may have ended early",
          {
            upstream: endpoint,
          },
        );
      }
      throw mismatch(endpoint, "the bytes are not those of the digest");
    }
    this.#sizeBytes = have;
    this.#isVerified = true;
    this.#wake();
  }

  async #publish(): Promise<FillOutcome> {
    const partial = this.#partial;
    if (partial === undefined) return "passed";
    // Opened in any case: somebody may join until the row is in.
    const file = await this.openFile().catch(() => undefined);
    if (this.#passedFrom !== undefined) {
      await partial.discard();
      return "passed";
    }
    try {
      await this.#options.onVerified(this.#window.end, () => partial.publish());
    } catch (error) {
      this.#options.onDegraded(error);
      return "passed";
    }
    // Readers go on from the file: the memory is worth more to the next fill.
    if (file !== undefined) this.#clearWindow();
    return "stored";
  }

  async #fail(error: unknown, outcome: FillOutcome): Promise<void> {
    this.#abort.abort(error);
    this.#failure =
      error instanceof Error ? error : new BrokenBody(String(error));
    if (!this.#isHeadIn) this.#headIn.reject(this.#failure);
    while (this.#writing !== undefined) await this.#writing;
    const partial = this.#partial;
    if (partial === undefined) {
      this.#wake();
      return;
    }
    if (
      outcome === "mismatch" ||
      outcome === "refused" ||
      this.#passedFrom !== undefined
    ) {
      this.#wake();
      await partial.discard();
      return;
    }
    if (this.#readers.size > 0) await this.openFile().catch(() => {});
    await partial.suspend().catch(() => {});
  }

  // --- memory and storage ------------------------------------------------------------------------

  #startWriter(): void {
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
  }

  async #write(): Promise<void> {
    const partial = this.#partial;
    if (partial === undefined) return;
    while (partial.writtenBytes < this.#window.end) {
      const from = partial.writtenBytes;
      try {
        await partial.append(
          this.#window.slice(from, this.#window.end, WRITE_BYTES),
        );
      } catch (error) {
        this.#degrade(partial, error);
        return;
      }
      this.#trim();
    }
  }

  /** From now on the bytes pass through; the hash gets what the storage did not take. */
  #degrade(partial: PartialBlob, error: unknown): void {
    let at = partial.writtenBytes;
    this.#passedFrom = { offset: at, hash: this.#hash.fork() };
    while (at < this.#window.end) {
      for (const part of this.#window.slice(
        at,
        this.#window.end,
        WRITE_BYTES,
      )) {
        this.#hash.update(part);
        at += part.length;
      }
    }
    this.#options.onDegraded(error);
    if (this.#readers.size === 0 && this.#isHeadIn) {
      this.#abort.abort(new BrokenBody("nobody reads", { cause: error }));
    }
    this.#trim();
    this.#wake();
  }

  /** Drops the chunks that nobody needs from memory, and lets the body go on where there is room. */
  #trim(): void {
    const max = this.#options.windowBytes;
    const neededFrom =
      this.#passedFrom === undefined ? this.storedEnd : this.#fastestReader();
    while (
      this.#window.costBytes > max &&
      this.#window.start < this.#window.end &&
      this.#window.oldestEnd <= neededFrom
    ) {
      this.#window.dropOldest();
    }
    if (this.#window.costBytes <= max) this.#resumeBody();
  }

  /** Position of the reader nearest to the head; readers that wait for bytes ahead of it need none. */
  #fastestReader(): number {
    let fastest = -1;
    for (const { position } of this.#readers) {
      if (position <= this.#window.end) fastest = Math.max(fastest, position);
    }
    return fastest === -1 ? this.#window.end : fastest;
  }

  #resumeBody(): void {
    this.#paused?.resume();
    this.#paused = undefined;
  }

  #clearWindow(): void {
    while (this.#window.start < this.#window.end) this.#window.dropOldest();
  }

  #wake(): void {
    const waiters = this.#waiters;
    if (waiters.length === 0) return;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }

  /**
   * Wakes the readers once the bytes that have arrived together are all in: they take them in one
   * write, and a hundred readers cost a fraction of the garbage.
   */
  #wakeSoon(): void {
    if (this.#isWaking) return;
    this.#isWaking = true;
    setImmediate(() => {
      this.#isWaking = false;
      this.#wake();
    });
  }

  async #pause(delayMs: number): Promise<void> {
    if (delayMs === 0) return;
    const { signal } = this.#abort;
    await delay(delayMs, undefined, { signal }).catch(() => {});
  }

  /** The last reader of a fill that is over has gone. */
  #release(): void {
    this.#clearWindow();
    this.#passedFrom?.hash.close();
    this.#file?.then((file) => file.close()).catch(() => {});
    this.#file = undefined;
  }
}

function mismatch(endpoint: string, message: string): UpstreamError {
  return new UpstreamError("digest-mismatch", message, { upstream: endpoint });
}

function outcomeOf(error: unknown): FillOutcome {
  if (error instanceof PartialRefused) return "refused";
  return error instanceof UpstreamError && error.kind === "digest-mismatch"
    ? "mismatch"
    : "broken";
}

/** A refusal to continue what an earlier fill left speaks against those bytes. */
function withoutPartial(error: unknown, haveBytes: number): unknown {
  return haveBytes > 0 &&
    error instanceof UpstreamError &&
    error.kind === "bad-response"
    ? new PartialRefused({ cause: error })
    : error;
}
