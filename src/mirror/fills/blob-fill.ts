import type { BlobReader } from "../../storage/blob-store.ts";
import type { Digest } from "../../oci/digest.ts";
import { UpstreamError } from "../../wire/errors.ts";
import { BrokenBody } from "../blobs/body.ts";
import { FillBytes } from "./fill-bytes.ts";
import {
  FillDownload,
  type FillHead,
  mismatch,
  PartialRefused,
} from "./fill-download.ts";
import type { FillEnd, FillOptions, FillOutcome } from "./fill-options.ts";
import { FillReader } from "./fill-reader.ts";

/**
 * The last bytes of a blob that no reader gets before the digest and the size are right: without
 * them no client can take a wrong body for a complete one.
 */
export const TAIL_BYTES = 64 * 1024;

/**
 * One upstream body on its way into the cache, and any number of readers that follow it from the
 * first byte, each at its own pace. It belongs to none of them: it goes on when they leave.
 *
 * A {@link FillDownload} brings the bytes, {@link FillBytes} holds and stores them. Readers at the
 * head are served from memory, readers behind it from the partial file. The upstream is paced by
 * the storage alone. When the storage fails the fill passes the bytes through: paced by its
 * fastest reader, and a reader that falls out of the window continues with a body of its own
 * ({@link continuation}), verified like any other.
 */
export class BlobFill {
  readonly digest: Digest;
  /** Rejects when the upstream gave no body; then no client was promised anything. */
  readonly head: Promise<FillHead>;
  /** Resolves when the blob is in the index, or will not come. Never rejects. */
  readonly ended: Promise<FillEnd>;

  readonly #options: FillOptions;
  readonly #abort = new AbortController();
  readonly #readers = new Set<FillReader>();
  readonly #bytes: FillBytes;
  readonly #download: FillDownload;
  #waiters: (() => void)[] = [];
  #headIn: PromiseWithResolvers<FillHead> = Promise.withResolvers();
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
      onHead: (head) => this.#headIn.resolve(head),
      onBytes: () => this.#wakeSoon(),
      onResume: () => options.onResume(),
      verify: (endpoint) => this.#verify(endpoint),
    });
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
    return (
      !this.#isOver &&
      this.#failure === undefined &&
      !this.#abort.signal.aborted
    );
  }

  /** Whether the bytes go into the cache, as far as is known. */
  get isStored(): boolean {
    return this.#bytes.isStored;
  }

  /** Position after the newest byte that came. */
  get receivedBytes(): number {
    return this.#bytes.end;
  }

  /** @returns a reader of the whole blob; {@link FillReader.setRange} narrows it */
  openReader(): FillReader {
    const reader = new FillReader(this);
    this.#readers.add(reader);
    return reader;
  }

  /** Stores nothing from here on: there is no room for it. */
  passThrough(reason: unknown): void {
    this.#bytes.passThrough(reason);
  }

  /** Memory is due to other fills. */
  onSmallerWindow(): void {
    if (!this.#isOver) this.#bytes.onSmallerWindow();
  }

  /** Breaks off a body that hardly moves on, to be resumed. @returns false where it does move on */
  cutTrickle(): boolean {
    return !this.#isOver && this.#download.cutTrickle();
  }

  /** Ends the fill and keeps what came; its readers are cut off. */
  async suspend(): Promise<void> {
    this.#isSuspending = true;
    this.#stop("the fill was suspended");
    await this.ended;
  }

  // --- what a reader needs -------------------------------------------------------------------

  /** Position after the last byte that a reader may have now. */
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
   * Waits for the digest.
   *
   * @returns the size
   * @throws what the fill failed with
   */
  async verifiedSize(): Promise<number> {
    while (!this.#isVerified) {
      if (this.#failure !== undefined) throw this.#failure;
      await this.changed();
    }
    return this.#bytes.end;
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
    return this.#bytes.fromWindow(position, limit, maxBytes);
  }

  /** Position after the last byte that can be read back from the storage. */
  get storedEnd(): number {
    return this.#bytes.storedEnd;
  }

  /** The partial file, opened once for all readers. */
  openFile(): Promise<BlobReader> {
    return this.#bytes.openFile();
  }

  /** The same, once it is open. */
  get openedFile(): BlobReader | undefined {
    return this.#bytes.openedFile;
  }

  /** A body of its own for a reader that neither the window nor the storage can serve any more. */
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

  /** Resolves when something changed. */
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
    // Nothing is stored and nobody reads: the bytes would go nowhere.
    else if (!this.isStored) this.#stop("nobody reads");
  }

  // --- from the first byte to the last -------------------------------------------------------

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

  /** @throws UpstreamError `interrupted` where more may come, `digest-mismatch` where none will help */
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
      // Without a length the end of the connection proves nothing: only the digest does.
      throw size === undefined
        ? new UpstreamError("interrupted", "the body may have ended early", {
            upstream: endpoint,
          })
        : mismatch(endpoint, "the bytes are not those of the digest");
    }
    this.#download.sizeBytes = have;
    this.#isVerified = true;
    this.#wake();
  }

  async #publish(): Promise<FillOutcome> {
    const { writer } = this.#bytes;
    if (writer === undefined) return "passed";
    // Opened in any case: somebody may join until the row is in.
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
    // Readers go on from the file: the memory is worth more to the next fill.
    if (file !== undefined) this.#bytes.clearWindow();
    return "stored";
  }

  async #fail(error: unknown, outcome: FillOutcome): Promise<void> {
    this.#abort.abort(error);
    this.#failure =
      error instanceof Error ? error : new BrokenBody(String(error));
    this.#headIn.reject(this.#failure);
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
      this.#abort.abort(new BrokenBody("nobody reads", { cause: error }));
    }
    this.#wake();
  }

  #stop(reason: string): void {
    this.#abort.abort(new BrokenBody(reason));
    this.#download.onRoom();
  }

  // --- its readers ---------------------------------------------------------------------------

  /** Readers that wait for bytes ahead of the head can use none of those that are held. */
  #fastestReader(): number | undefined {
    let fastest: number | undefined;
    for (const { position } of this.#readers) {
      if (position <= this.#bytes.end && position >= (fastest ?? 0)) {
        fastest = position;
      }
    }
    return fastest;
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
}

function outcomeOf(error: unknown): FillOutcome {
  if (error instanceof PartialRefused) return "refused";
  return error instanceof UpstreamError && error.kind === "digest-mismatch"
    ? "mismatch"
    : "broken";
}
