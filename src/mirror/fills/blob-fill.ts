import type { BlobReader } from "../../storage/blob-store.ts";
import type { Digest } from "../../oci/digest.ts";
import { UpstreamError } from "../../wire/errors.ts";
import { BrokenBody, TAIL_BYTES } from "../../bodies/body.ts";
import { FillBytes } from "./fill-bytes.ts";
import {
  FillDownload,
  type FillHead,
  mismatch,
  PartialRefused,
} from "./fill-download.ts";
import type { FillEnd, FillOptions, FillOutcome } from "./fill-options.ts";
import { FillReader } from "./fill-reader.ts";

const NO_READER = "the fill has neither a storage nor a reader";

/**
 * Copies one upstream body into the cache while any number of readers follow it from the first byte,
 * each at its own pace. The fill does not depend on its readers: it continues when they leave.
 *
 * A {@link FillDownload} receives the bytes, {@link FillBytes} holds and stores them. Readers near the
 * newest byte are served from memory, slower ones from the partial file. Only the storage limits the
 * pace of the download. If the storage fails, the fill passes the bytes through: the fastest reader sets
 * the pace, and a reader that falls out of the window continues with an upstream body of its own
 * ({@link continuation}), which is verified like any other.
 */
export class BlobFill {
  readonly digest: Digest;
  /** Rejects if the upstream sent no body; no client has got a response head then. */
  readonly head: Promise<FillHead>;
  /** Resolves when the blob is in the index, or the fill has failed. Never rejects. */
  readonly ended: Promise<FillEnd>;

  readonly #options: FillOptions;
  readonly #abort = new AbortController();
  readonly #readers = new Set<FillReader>();
  readonly #bytes: FillBytes;
  readonly #download: FillDownload;
  #waiters: (() => void)[] = [];
  #firstHead: PromiseWithResolvers<FillHead> = Promise.withResolvers();
  #isVerified = false;
  #isOver = false;
  #failure: Error | undefined;
  #isSuspending = false;
  #isWaking = false;

  constructor(options: FillOptions) {
    this.#options = options;
    this.digest = options.digest;
    this.#bytes = new FillBytes({
      storage: options.storage,
      windowBytes: () => options.windowBytes(),
      fastestReader: () => this.#fastestReader(),
      isHeld: (start, end) => this.#isHeld(start, end),
      onRoom: () => this.#download.onRoom(),
      onDegraded: (error) => this.#onDegraded(error),
    });
    this.#download = new FillDownload({
      sink: this.#bytes,
      expectedBytes: options.expectedBytes,
      isSizeAnnounced: options.isSizeAnnounced === true,
      avoid: options.avoid,
      headersTimeoutMs: options.headersTimeoutMs,
      signal: this.#abort.signal,
      monotonicMs: options.monotonicMs ?? (() => performance.now()),
      open: (request) => options.open(request),
      giveWay: async () => options.giveWay?.(this.#abort.signal),
      hasReaders: () => this.hasReaders,
      onHead: (head) => this.#firstHead.resolve(head),
      onBytes: () => this.#wakeSoon(),
      onResume: () => options.onResume(),
      verify: (endpoint) => this.#verify(endpoint),
    });
    this.head = this.#firstHead.promise;
    // Callers that wait for the head see the rejection; without one it must not end the process.
    this.head.catch(() => {});
    this.ended = this.#run();
  }

  get hasReaders(): boolean {
    return this.#readers.size > 0;
  }

  get readerCount(): number {
    return this.#readers.size;
  }

  /** True unless the fill has ended, failed or is being suspended. */
  get isJoinable(): boolean {
    return (
      !this.#isOver &&
      this.#failure === undefined &&
      !this.#abort.signal.aborted
    );
  }

  /** True while the bytes are stored in the cache. */
  get isStored(): boolean {
    return this.#bytes.isStored;
  }

  /** Position after the newest byte received. */
  get receivedBytes(): number {
    return this.#bytes.end;
  }

  /** Opens a reader of the whole blob; {@link FillReader.setRange} narrows it. */
  openReader(): FillReader {
    const reader = new FillReader(this);
    this.#readers.add(reader);
    return reader;
  }

  /** Stops storing, because there is no room; later bytes are passed through. */
  passThrough(reason: unknown): void {
    this.#bytes.passThrough(reason);
  }

  /** Reduces the window after more fills share the memory. */
  onSmallerWindow(): void {
    if (!this.#isOver) this.#bytes.onSmallerWindow();
  }

  /** Ends a body that is too slow, to be resumed later. @returns false if it is fast enough */
  cutTrickle(): boolean {
    return !this.#isOver && this.#download.cutTrickle();
  }

  /** Ends the fill and keeps the bytes received so far; its readers fail. */
  async suspend(): Promise<void> {
    this.#isSuspending = true;
    this.#stop("the fill was suspended");
    await this.ended;
  }

  // --- used by readers ------------------------------------------------------------------------

  /** Position after the last byte that readers may get now. */
  get readableEnd(): number {
    const { end } = this.#bytes;
    if (this.#isVerified) return end;
    return Math.min(end, Math.max(0, (this.sizeBytes ?? end) - TAIL_BYTES));
  }

  get sizeBytes(): number | undefined {
    return this.#download.sizeBytes;
  }

  get isVerified(): boolean {
    return this.#isVerified;
  }

  /**
   * Waits until the digest is verified; returns the size.
   *
   * @throws the failure of the fill
   */
  async verifiedSize(): Promise<number> {
    while (!this.#isVerified) {
      if (this.#failure !== undefined) throw this.#failure;
      await this.changed();
    }
    return this.#bytes.end;
  }

  /** Set if the fill has failed: no more bytes are received. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Returns bytes from the window; undefined if the position is before it. */
  fromWindow(
    position: number,
    limit: number,
    maxBytes: number,
  ): Buffer[] | undefined {
    return this.#bytes.fromWindow(position, limit, maxBytes);
  }

  /** Position after the last byte that can be read from the storage. */
  get storedEnd(): number {
    return this.#bytes.storedEnd;
  }

  /** Opens the partial file, once for all readers. */
  openFile(): Promise<BlobReader> {
    return this.#bytes.openFile();
  }

  /** The partial file, if it is open. */
  get openedFile(): BlobReader | undefined {
    return this.#bytes.openedFile;
  }

  /** Starts another fill for a reader that neither the window nor the storage can serve. */
  continuation(position: number): BlobFill {
    return new BlobFill({
      ...this.#options,
      expectedBytes: this.sizeBytes,
      isSizeAnnounced: true,
      avoid: this.#download.avoid,
      storage: this.#bytes.continueFrom(position, () =>
        this.#options.createHash(),
      ),
      onVerified: async () => {},
      giveWay: async () => {},
    });
  }

  /** Resolves at the next change of the fill's state. */
  changed(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  onReaderProgress(): void {
    if (!this.isStored && !this.#isOver) this.#bytes.trim();
  }

  onReaderClosed(reader: FillReader): void {
    if (!this.#readers.delete(reader)) return;
    this.#wake();
    if (this.#readers.size > 0) return;
    if (this.#isOver) this.#bytes.release();
    // The bytes are neither stored nor read.
    else if (!this.isStored) this.#stop(NO_READER);
  }

  // --- download, verification, publication ----------------------------------------------------

  async #run(): Promise<FillEnd> {
    let outcome: FillOutcome = "broken";
    let error: unknown;
    try {
      await this.#download.run();
      outcome = await this.#publish();
    } catch (caught) {
      error = caught;
      outcome = this.#isSuspending ? "suspended" : outcomeOf(caught);
      await this.#fail(caught, outcome);
    }
    this.#isOver = true;
    this.#bytes.closeHash();
    if (this.#readers.size === 0) this.#bytes.release();
    this.#wake();
    return {
      outcome,
      sizeBytes: this.#bytes.end,
      resumes: this.#download.resumes,
      endpoints: this.#download.endpoints,
      error,
    };
  }

  /** @throws UpstreamError `interrupted` if a resumed download may help, `digest-mismatch` if not */
  async #verify(endpoint: string): Promise<void> {
    await this.#bytes.flush();
    if (this.#abort.signal.aborted) throw this.#abort.signal.reason;
    const size = this.sizeBytes;
    const have = this.#bytes.end;
    if (size !== undefined && have < size) {
      throw new UpstreamError("interrupted", "the body ended early", {
        upstream: endpoint,
      });
    }
    const actual = await this.#bytes.digest();
    if (actual !== this.digest) {
      // Without a length, the end of the connection does not prove that the body is complete.
      throw size === undefined
        ? new UpstreamError("interrupted", "the body may have ended early", {
            upstream: endpoint,
          })
        : mismatch(endpoint, "got bytes with another digest");
    }
    this.#download.sizeBytes = have;
    this.#isVerified = true;
    this.#wake();
  }

  async #publish(): Promise<FillOutcome> {
    const { writer } = this.#bytes;
    if (writer === undefined) return "passed";
    // Always opened: readers may join until the index has the row.
    const file = await this.openFile().catch(() => undefined);
    if (!this.isStored) {
      await writer.abort();
      return "passed";
    }
    try {
      await this.#options.onVerified(this.#bytes.end, () =>
        writer.commit(this.#options.digest),
      );
    } catch (error) {
      this.#options.onDegraded(error);
      return "passed";
    }
    // Readers continue from the file, so that the next fill can use the memory.
    if (file !== undefined) this.#bytes.clearWindow();
    return "stored";
  }

  async #fail(error: unknown, outcome: FillOutcome): Promise<void> {
    this.#abort.abort(error);
    this.#failure =
      error instanceof Error ? error : new BrokenBody(String(error));
    this.#firstHead.reject(this.#failure);
    await this.#bytes.flush();
    const { writer } = this.#bytes;
    if (writer === undefined) {
      this.#wake();
      return;
    }
    if (outcome === "mismatch" || outcome === "refused" || !this.isStored) {
      this.#wake();
      await writer.abort();
      return;
    }
    if (this.#readers.size > 0) await this.openFile().catch(() => {});
    await writer.suspend().catch(() => {});
  }

  #onDegraded(error: unknown): void {
    this.#options.onDegraded(error);
    if (this.#readers.size === 0 && this.#download.isHeadIn) {
      this.#abort.abort(new BrokenBody(NO_READER, { cause: error }));
    }
    this.#wake();
  }

  #stop(reason: string): void {
    this.#abort.abort(new BrokenBody(reason));
    this.#download.onRoom();
  }

  // --- readers --------------------------------------------------------------------------------

  /** Ignores readers beyond the newest byte: they cannot use the bytes in the window. */
  #fastestReader(): number | undefined {
    let fastest: number | undefined;
    for (const { position } of this.#readers) {
      if (position <= this.#bytes.end && position >= (fastest ?? 0)) {
        fastest = position;
      }
    }
    return fastest;
  }

  #isHeld(start: number, end: number): boolean {
    for (const reader of this.#readers) {
      if (reader.heldFrom < end && reader.position > start) return true;
    }
    return false;
  }

  #wake(): void {
    const waiters = this.#waiters;
    if (waiters.length === 0) return;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }

  /**
   * Wakes the readers after all bytes that arrived together: they send them in one write, which
   * reduces the garbage of a hundred readers.
   */
  #wakeSoon(): void {
    if (this.#isWaking) return;
    this.#isWaking = true;
    setImmediate(() => {
      this.#isWaking = false;
      this.#wake();
    });
  }
}

function outcomeOf(error: unknown): FillOutcome {
  if (error instanceof PartialRefused) return "refused";
  return error instanceof UpstreamError && error.kind === "digest-mismatch"
    ? "mismatch"
    : "broken";
}
