import { Readable } from "node:stream";
import type { Bandwidth } from "./bandwidth.ts";
import type { Answer } from "./exchange.ts";
import { UpstreamError } from "./errors.ts";
import { bodyFault, type FaultPlace } from "./faults.ts";

/** Bounds of reading an unwanted body to its end, so that its connection can be kept. */
const MAX_DISCARDED_BYTES = 65_536;
const MAX_DISCARD_MS = 2_000;

/** A small body that is slower than this is treated as stalled. */
const MIN_BYTES_PER_SECOND = 1_024;

/** Reads an unwanted body to its end; closes its connection if the body is long or slow. */
export function discardBody(body: Readable): void {
  let bytes = 0;
  body.on("error", () => {});
  if (!body.destroyed) {
    const timer = setTimeout(() => body.destroy(), MAX_DISCARD_MS).unref();
    body.once("close", () => clearTimeout(timer));
  }
  body.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > MAX_DISCARDED_BYTES) body.destroy();
  });
}

/**
 * Reads a whole body.
 *
 * @throws UpstreamError `too-large` as soon as `maxBytes` are exceeded, `interrupted`, `timeout` also
 *   if the body is too slow
 */
export async function readBody(
  { body, header, url, patienceMs }: Answer,
  maxBytes: number,
  upstream: string,
  onBytes: (bytes: number) => void,
): Promise<Buffer> {
  const place = { upstream, origin: url.origin };
  const expectedBytes = parseLength(header("content-length"));
  if (expectedBytes !== undefined && expectedBytes > maxBytes) {
    body.destroy();
    throw tooLarge(place, maxBytes);
  }
  const chunks: Buffer[] = [];
  let bytes = 0;
  let bytesBefore = 0;
  const pace = setInterval(() => {
    const minBytes = (MIN_BYTES_PER_SECOND * patienceMs) / 1000;
    if (bytes - bytesBefore < minBytes) body.destroy(tooSlow(place));
    bytesBefore = bytes;
  }, patienceMs);
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      onBytes(chunk.length);
      if (bytes > maxBytes) throw tooLarge(place, maxBytes);
      chunks.push(chunk);
    }
  } catch (error) {
    throw bodyFault(error, place);
  } finally {
    clearInterval(pace);
  }
  return Buffer.concat(chunks, bytes);
}

/** Parses a `Content-Length`; undefined for anything but one plain decimal number. */
export function parseLength(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d+$/.test(text)) return undefined;
  const length = Number(text);
  return Number.isSafeInteger(length) ? length : undefined;
}

export interface BlobBodyOptions {
  readonly source: Readable;
  readonly place: FaultPlace;
  /** The length of this body, if the upstream sent one. */
  readonly expectedBytes: number | undefined;
  readonly onBytes: (bytes: number) => void;
  /** The budget that received bytes are booked in; absent: unlimited. */
  readonly bandwidth?: Bandwidth;
  /** Called once, when the connection is no longer used. */
  readonly onClose: () => void;
}

/** An undici body that counts its bytes, reports errors as UpstreamErrors and releases its slot at its end. */
export class BlobBody extends Readable {
  readonly #options: BlobBodyOptions;
  #bytes = 0;
  #isWhole = false;
  /** Runs while the bandwidth is used up. */
  #pause: NodeJS.Timeout | undefined;
  #isWanted = false;
  #pacedMs = 0;
  #pausedUntilMs = 0;

  constructor(options: BlobBodyOptions) {
    super({ highWaterMark: 65_536 });
    this.#options = options;
    const { source } = options;
    source.on("data", (chunk: Buffer) => this.#take(chunk));
    source.once("end", () => this.#finish());
    source.once("error", (error) => this.#fail(error));
    // When its agent is destroyed, a body may emit `close` only.
    source.once("close", () => this.#fail(undefined));
    source.pause();
    if (source.destroyed) process.nextTick(() => this.#fail(source.errored));
    // The body may break before it has a reader; the reader then finds it destroyed.
    this.on("error", () => {});
  }

  /** The total time for which the bandwidth limit has paused the body. */
  get pacedMs(): number {
    return this.#pacedMs;
  }

  override _read(): void {
    this.#isWanted = true;
    if (this.#pause === undefined) this.#options.source.resume();
  }

  override _destroy(
    error: Error | null,
    callback: (error?: Error | null) => void,
  ): void {
    clearTimeout(this.#pause);
    this.#options.source.destroy();
    this.#options.onClose();
    callback(error);
  }

  #take(chunk: Buffer): void {
    if (this.destroyed) return;
    this.#bytes += chunk.length;
    this.#options.onBytes(chunk.length);
    const pauseMs = this.#options.bandwidth?.book(chunk.length) ?? 0;
    this.#isWanted = this.push(chunk);
    if (pauseMs > 0) this.#wait(pauseMs);
    if (!this.#isWanted || pauseMs > 0) this.#options.source.pause();
  }

  #wait(pauseMs: number): void {
    const nowMs = performance.now();
    const startMs = Math.max(nowMs, this.#pausedUntilMs);
    this.#pausedUntilMs = Math.max(startMs, nowMs + pauseMs);
    this.#pacedMs += this.#pausedUntilMs - startMs;
    clearTimeout(this.#pause);
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      if (this.#isWanted) this.#options.source.resume();
    }, pauseMs);
  }

  #finish(): void {
    const { expectedBytes } = this.#options;
    if (expectedBytes !== undefined && expectedBytes !== this.#bytes) {
      this.#fail(undefined);
      return;
    }
    this.#isWhole = true;
    this.push(null);
    // The connection is free now, even if the last bytes are not read yet.
    this.#options.onClose();
  }

  #fail(error: unknown): void {
    if (this.destroyed || this.#isWhole) return;
    this.destroy(bodyFault(error, this.#options.place));
  }
}

function tooLarge(place: FaultPlace, maxBytes: number): UpstreamError {
  return new UpstreamError(
    "too-large",
    `${place.origin}: got more than ${maxBytes} bytes`,
    place,
  );
}

function tooSlow(place: FaultPlace): UpstreamError {
  return new UpstreamError(
    "timeout",
    `${place.origin}: the body is too slow`,
    place,
  );
}
