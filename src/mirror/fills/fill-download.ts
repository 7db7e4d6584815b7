import { setTimeout as delay } from "node:timers/promises";
import type { OpenBlobOptions, UpstreamBlob } from "../../upstream/client.ts";
import { UpstreamError, type UpstreamErrorKind } from "../../wire/errors.ts";
import { FillPace } from "./fill-pace.ts";
import { chooseResume } from "./fill-resume.ts";

/** A body that delivered this many bytes counts as progress and resets the retry counter. */
const FRUITFUL_BYTES = 64 * 1024;

/** After this many bytes of one body, other work runs: Node reads a socket as long as it has bytes. */
const TURN_BYTES = 1024 * 1024;

/** Bound of bodies of unknown length; no blob is larger. */
const MAX_BLOB_BYTES = 64 * 1024 ** 3;

/** The facts known once the upstream's headers are received. */
export interface FillHead {
  /** The size of the whole blob; undefined if neither the upstream nor a descriptor states it. */
  readonly sizeBytes: number | undefined;
  /** The upstream's status: 200, or 206 if an earlier partial blob is continued. */
  readonly status: number;
}

/** The partial blob of an earlier fill cannot be continued; a fill from the first byte may succeed. */
export class PartialRefused extends Error {
  constructor(options?: { cause?: unknown }) {
    super("the partial blob cannot be continued", options);
    this.name = "PartialRefused";
  }
}

/** The receiver of the bytes. */
export interface FillSink {
  /** Position after the newest byte received. */
  readonly end: number;
  /** True if the download must wait for {@link FillDownload.onRoom}. */
  readonly isFull: boolean;
  push(bytes: Buffer): void;
}

export interface FillDownloadOptions {
  readonly sink: FillSink;
  /** The size in a descriptor; if the upstream states another length, only the digest decides. */
  readonly expectedBytes: number | undefined;
  /** A client already got the size: a body of another length is rejected. */
  readonly isSizeAnnounced: boolean;
  /** Endpoints that sent wrong bytes; they are tried last. */
  readonly avoid: ReadonlySet<string>;
  /** Time limit of the first headers, including the wait in a queue. */
  readonly headersTimeoutMs: number;
  readonly signal: AbortSignal;
  monotonicMs(): number;
  /** Called before a download that was too slow is resumed; resolves when it may continue. */
  giveWay(): Promise<void>;
  open(options: OpenBlobOptions): Promise<UpstreamBlob>;
  hasReaders(): boolean;
  onHead(head: FillHead): void;
  /** Bytes were received. */
  onBytes(): void;
  onResume(): void;
  /**
   * Verifies the blob after all bytes were received.
   *
   * @throws UpstreamError `interrupted` if a resumed download may help, `digest-mismatch` if not
   */
  verify(endpoint: string): Promise<void>;
}

/** Downloads one blob from its upstream, in as many bodies as needed. */
export class FillDownload {
  /** Endpoints that sent bytes. */
  readonly endpoints = new Set<string>();
  readonly avoid: Set<string>;
  /** The size of the whole blob, if known. */
  sizeBytes: number | undefined;
  /** True once the upstream's first headers were received. */
  isHeadIn = false;
  resumes = 0;
  readonly #options: FillDownloadOptions;
  #paused: { resume(): unknown } | undefined;
  /** The body that is being read. */
  #reading: { readonly pace: FillPace; cut(): void } | undefined;
  #isGivingWay = false;

  constructor(options: FillDownloadOptions) {
    this.#options = options;
    this.avoid = new Set(options.avoid);
    this.sizeBytes = options.expectedBytes;
  }

  /**
   * Downloads until every byte is in the sink and verified.
   *
   * @throws UpstreamError, PartialRefused, the errors of `verify`, the signal's reason
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

  /** Resumes the body: the sink has room again, or the fill was stopped. */
  onRoom(): void {
    if (this.#paused === undefined) return;
    this.#paused.resume();
    this.#paused = undefined;
    this.#reading?.pace.onFreed();
  }

  /** Ends a body that is too slow, to be resumed later. @returns false if it is fast enough */
  cutTrickle(): boolean {
    if (this.#reading?.pace.isTrickling !== true) return false;
    this.#isGivingWay = true;
    this.#reading.cut();
    return true;
  }

  /** Requests the missing bytes. */
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
      const error = fault(
        "bad-response",
        upstream.endpoint,
        "got another length from the resumed download",
      );
      throw this.isHeadIn ? error : withoutPartial(error, haveBytes);
    }
    this.sizeBytes ??= upstream.sizeBytes;
    return upstream;
  }

  /**
   * Returns the first byte to request. If no byte may be missing, the last received one is requested
   * again: a range after the end would be refused, and the answer states the length.
   */
  #offset(): number {
    const have = this.#options.sink.end;
    const size = this.sizeBytes;
    return have === 0 || (size !== undefined && have < size) ? have : have - 1;
  }

  /** Reads the body into the sink; resolves at its end or at the last byte of a known size. */
  #consume(upstream: UpstreamBlob): Promise<void> {
    const { body, endpoint } = upstream;
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
        body.destroy(fault("timeout", endpoint, "the body is too slow")),
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
        const error = mismatch(endpoint, "got more bytes than announced");
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
            fault("interrupted", endpoint, "the body ended early"),
        ),
      );
    body.on("close", onClose);
    // The body broke before these listeners were added and emits no more events.
    if (body.destroyed) onClose();
    return promise;
  }
}

export function mismatch(endpoint: string, message: string): UpstreamError {
  return fault("digest-mismatch", endpoint, message);
}

function fault(
  kind: UpstreamErrorKind,
  endpoint: string,
  message: string,
): UpstreamError {
  return new UpstreamError(kind, message, { upstream: endpoint });
}

/** Converts a refusal to continue into a fault of the partial blob that an earlier fill left. */
function withoutPartial(error: unknown, haveBytes: number): unknown {
  return haveBytes > 0 &&
    error instanceof UpstreamError &&
    error.kind === "bad-response"
    ? new PartialRefused({ cause: error })
    : error;
}
