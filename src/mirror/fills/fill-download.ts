import { setTimeout as delay } from "node:timers/promises";
import type { OpenBlobOptions, UpstreamBlob } from "../../upstream/client.ts";
import { UpstreamError } from "../../wire/errors.ts";
import { FillPace } from "./fill-pace.ts";
import { chooseResume } from "./fill-resume.ts";

/** A body that brought so much has brought something: the patience with its upstream starts anew. */
const FRUITFUL_BYTES = 64 * 1024;

/** After so much of one body everybody else has a turn: a socket is read as long as it has bytes. */
const TURN_BYTES = 1024 * 1024;

/** No blob is larger; only bodies of unknown length ever meet it. */
const MAX_BLOB_BYTES = 64 * 1024 ** 3;

/** What is known once the upstream's headers are in. */
export interface FillHead {
  /** Of the whole blob; undefined where neither the upstream nor a descriptor told. */
  readonly sizeBytes: number | undefined;
  /** The upstream's status: 200, or 206 where an earlier partial is continued. */
  readonly status: number;
}

/** The bytes that an earlier fill left can't be continued: a fill from the first byte may work. */
export class PartialRefused extends Error {
  constructor(options?: { cause?: unknown }) {
    super("the partial blob can't be continued", options);
    this.name = "PartialRefused";
  }
}

/** Where the bytes go. */
export interface FillSink {
  /** Position after the newest byte that came. */
  readonly end: number;
  /** Whoever brings more waits for {@link FillDownload.onRoom}. */
  readonly isFull: boolean;
  push(bytes: Buffer): void;
}

export interface FillDownloadOptions {
  readonly sink: FillSink;
  /** What a descriptor says; where the upstream says another length, only the digest decides. */
  readonly expectedBytes: number | undefined;
  /** The size was announced to a client already: an upstream with another length is of no use. */
  readonly isSizeAnnounced: boolean;
  /** Endpoints to be asked last, because they gave wrong bytes. */
  readonly avoid: ReadonlySet<string>;
  /** How long to wait for the first headers, queueing included. */
  readonly headersTimeoutMs: number;
  readonly signal: AbortSignal;
  monotonicMs(): number;
  /** Called before a download that hardly moved on is resumed; resolves when it may. */
  giveWay(): Promise<void>;
  open(options: OpenBlobOptions): Promise<UpstreamBlob>;
  hasReaders(): boolean;
  onHead(head: FillHead): void;
  /** Bytes came. */
  onBytes(): void;
  onResume(): void;
  /**
   * All bytes are in.
   *
   * @throws UpstreamError `interrupted` where more may come, `digest-mismatch` where none will help
   */
  verify(endpoint: string): Promise<void>;
}

/** One blob from its upstream, in as many bodies as it takes. */
export class FillDownload {
  /** Endpoints that gave bytes. */
  readonly endpoints = new Set<string>();
  readonly avoid: Set<string>;
  /** Of the whole blob, where it is known. */
  sizeBytes: number | undefined;
  /** The upstream's first headers came. */
  isHeadIn = false;
  resumes = 0;
  readonly #options: FillDownloadOptions;
  #paused: { resume(): unknown } | undefined;
  /** Of the body that is read now. */
  #reading: { readonly pace: FillPace; cut(): void } | undefined;
  #isGivingWay = false;

  constructor(options: FillDownloadOptions) {
    this.#options = options;
    this.avoid = new Set(options.avoid);
    this.sizeBytes = options.expectedBytes;
  }

  /**
   * Resolves when every byte is in the sink and verified.
   *
   * @throws UpstreamError, PartialRefused, what `verify` throws, the signal's reason
   */
  async run(): Promise<void> {
    const { sink, signal } = this.#options;
    let fruitless = 0;
    let dials = 0;
    for (;;) {
      const before = sink.end;
      let endpoint: string | undefined;
      try {
        const upstream = await this.#open();
        endpoint = upstream.endpoint;
        this.endpoints.add(endpoint);
        await this.#consume(upstream);
        await this.#options.verify(endpoint);
        return;
      } catch (error) {
        fruitless = sink.end - before >= FRUITFUL_BYTES ? 1 : fruitless + 1;
        dials++;
        const delayMs = this.isHeadIn
          ? chooseResume(error, {
              fruitless,
              dials,
              hasReaders: this.#options.hasReaders(),
            })
          : undefined;
        if (delayMs === undefined || signal.aborted) throw error;
        if (endpoint !== undefined) this.avoid.add(endpoint);
        if (this.#isGivingWay) {
          this.#isGivingWay = false;
          await this.#options.giveWay();
        }
        if (delayMs > 0) {
          await delay(delayMs, undefined, { signal }).catch(() => {});
        }
        this.resumes++;
        this.#options.onResume();
      }
    }
  }

  /** The sink takes bytes again, or nobody wants them any more. */
  onRoom(): void {
    if (this.#paused === undefined) return;
    this.#paused.resume();
    this.#paused = undefined;
    this.#reading?.pace.onFreed();
  }

  /** Breaks off a body that hardly moves on, to be resumed. @returns false where it does move on */
  cutTrickle(): boolean {
    if (this.#reading?.pace.isTrickling !== true) return false;
    this.#isGivingWay = true;
    this.#reading.cut();
    return true;
  }

  /** Asks for the bytes that are missing. */
  async #open(): Promise<UpstreamBlob> {
    const { signal, headersTimeoutMs } = this.#options;
    if (this.isHeadIn) return this.#dial(signal);
    const deadline = AbortSignal.timeout(headersTimeoutMs);
    const waiting = new AbortController();
    const onAbort = () => waiting.abort(signal.reason);
    const onDeadline = () => waiting.abort(deadline.reason);
    signal.addEventListener("abort", onAbort);
    deadline.addEventListener("abort", onDeadline);
    try {
      const upstream = await this.#dial(waiting.signal);
      this.sizeBytes = upstream.sizeBytes ?? this.sizeBytes;
      this.isHeadIn = true;
      this.#options.onHead({
        sizeBytes: this.sizeBytes,
        status: upstream.status,
      });
      return upstream;
    } finally {
      deadline.removeEventListener("abort", onDeadline);
    }
  }

  async #dial(signal: AbortSignal): Promise<UpstreamBlob> {
    const haveBytes = this.#options.sink.end;
    const upstream = await this.#options
      .open({ offset: this.#offset(), avoid: this.avoid, signal })
      .catch((error: unknown) => {
        throw this.isHeadIn ? error : withoutPartial(error, haveBytes);
      });
    const isSizeFixed = this.isHeadIn || this.#options.isSizeAnnounced;
    const size = isSizeFixed ? this.sizeBytes : undefined;
    if (
      (size !== undefined &&
        upstream.sizeBytes !== undefined &&
        upstream.sizeBytes !== size) ||
      (upstream.sizeBytes ?? Infinity) < haveBytes ||
      upstream.offset > haveBytes
    ) {
      upstream.body.destroy();
      this.avoid.add(upstream.endpoint);
      const error = new UpstreamError(
        "bad-response",
        "the upstream resumed with another length",
        { upstream: upstream.endpoint },
      );
      throw this.isHeadIn ? error : withoutPartial(error, haveBytes);
    }
    this.sizeBytes ??= upstream.sizeBytes;
    return upstream;
  }

  /**
   * The first byte to ask for. The last byte that is here is asked for again where nothing may be
   * missing: a range that starts after the end would be refused, and the answer tells the length.
   */
  #offset(): number {
    const have = this.#options.sink.end;
    const size = this.sizeBytes;
    return have === 0 || (size !== undefined && have < size) ? have : have - 1;
  }

  /** Takes the body's bytes in; resolves at its end or at the last byte of a known size. */
  #consume(upstream: UpstreamBlob): Promise<void> {
    const { body } = upstream;
    const { sink } = this.#options;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    let skipBytes = sink.end - upstream.offset;
    let turnBytes = 0;
    let isDone = false;
    const pace = new FillPace(
      () => this.#options.monotonicMs(),
      () => upstream.pacedMs?.() ?? 0,
    );
    this.#reading = {
      pace,
      cut: () =>
        body.destroy(
          new UpstreamError("timeout", "the body hardly moves on", {
            upstream: upstream.endpoint,
          }),
        ),
    };
    const finish = (settle: () => void) => {
      if (isDone) return;
      isDone = true;
      this.#paused = undefined;
      this.#reading = undefined;
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
      const end = sink.end + bytes.length;
      if (end > (this.sizeBytes ?? MAX_BLOB_BYTES)) {
        const error = mismatch(upstream.endpoint, "more bytes than announced");
        finish(() => reject(error));
        body.destroy();
        return;
      }
      sink.push(bytes);
      pace.onBytes(bytes.length);
      this.#options.onBytes();
      if (end === this.sizeBytes) finish(resolve);
      else if (sink.isFull) {
        body.pause();
        this.#paused = body;
        pace.onHeld();
      } else if ((turnBytes += bytes.length) >= TURN_BYTES) {
        turnBytes = 0;
        body.pause();
        setImmediate(() => {
          if (this.#paused === undefined) body.resume();
        });
      }
    });
    body.on("end", () => finish(resolve));
    body.on("error", (error) => finish(() => reject(error)));
    const onClose = (): void =>
      finish(() =>
        reject(
          body.errored ??
            new UpstreamError("interrupted", "the body ended early", {
              upstream: upstream.endpoint,
            }),
        ),
      );
    body.on("close", onClose);
    // It broke while its head was looked at: its events are over.
    if (body.destroyed) onClose();
    return promise;
  }
}

export function mismatch(endpoint: string, message: string): UpstreamError {
  return new UpstreamError("digest-mismatch", message, { upstream: endpoint });
}

/** A refusal to continue what an earlier fill left speaks against those bytes. */
function withoutPartial(error: unknown, haveBytes: number): unknown {
  return haveBytes > 0 &&
    error instanceof UpstreamError &&
    error.kind === "bad-response"
    ? new PartialRefused({ cause: error })
    : error;
}
