import { createHash } from "node:crypto";
import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { Barrier } from "./barrier.ts";
import { Counter } from "./barrier.ts";
import { ResponseParser } from "./response-parser.ts";
import type { ByteSource } from "./seeded-bytes.ts";

export interface RawRequest {
  readonly port: number;
  readonly host?: string;
  readonly method?: string;
  /** Written without encoding or checks. */
  readonly path: string;
  /** Added to `Host` and `Connection: close`, or replacing them. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Default `HTTP/1.1`. */
  readonly version?: string;
  /** Written instead of everything above. */
  readonly raw?: string | Buffer;
  /** Limits the reading rate. */
  readonly bytesPerSecond?: number;
  /** Stops reading the body after so many bytes until `barrier` is released. */
  readonly pause?: { readonly atByte: number; readonly barrier: Barrier };
  /** Closes the connection by FIN or RST after so many bytes of the body. */
  readonly leave?: { readonly atByte: number; readonly by: "fin" | "rst" };
  /**
   * `keep`: the body is in the response. `hash`: only its digest. `compare`: only whether it is
   * `expected`, the cheapest for many clients.
   */
  readonly body?: "keep" | "hash" | "compare";
  /** For `compare`; share one Buffer among all clients to save memory. */
  readonly expected?: Buffer;
  /** Default 60 s. */
  readonly timeoutMs?: number;
}

/**
 * How a response ended: `complete` as framed; `fin` or `rst` before that; `eof` if the end of the
 * connection ends the body; `left` by this client; `timeout`.
 */
export type ResponseEnd =
  "complete" | "fin" | "rst" | "eof" | "left" | "timeout";

export interface RawResponse {
  /** 0 if no status line arrived. */
  readonly status: number;
  /** Names in lower case; several of one name joined by a comma. */
  readonly headers: Readonly<Record<string, string>>;
  /** Names and values as received. */
  readonly rawHeaders: readonly (readonly [string, string])[];
  /** Empty unless kept. */
  readonly body: Buffer;
  readonly bodyBytes: number;
  /** `sha256:…` of the body, if it was hashed. */
  readonly sha256: string | undefined;
  /** If compared: whether all received bytes equal those of `expected` at their positions. */
  readonly isPrefixOfExpected: boolean | undefined;
  readonly end: ResponseEnd;
  /** Bytes received after a complete response on the same connection. */
  readonly surplusBytes: number;
  readonly headersAfterMs: number | undefined;
  readonly durationMs: number;
}

/** A running request. */
export interface RawExchange {
  readonly response: Promise<RawResponse>;
  /** Bytes of the body received so far. */
  readonly bodyBytes: number;
  /** Resolves when so many bytes of the body are received. */
  received(bytes: number, timeoutMs?: number): Promise<void>;
  /** Resolves when the headers are received. */
  answered(timeoutMs?: number): Promise<void>;
}

/**
 * All connections read into this buffer, which is processed within the read: a thousand clients use
 * no more memory than one.
 */
const READ_BUFFER = Buffer.allocUnsafeSlow(262_144);
const READS_PER_SECOND = 20;

/** Sends a request over its own socket and reports exactly what it received. */
export function startRequest(request: RawRequest): RawExchange {
  const exchange = new Exchange(request);
  return exchange;
}

export async function rawRequest(request: RawRequest): Promise<RawResponse> {
  return startRequest(request).response;
}

class Exchange implements RawExchange {
  readonly response: Promise<RawResponse>;
  bodyBytes = 0;
  readonly #request: RawRequest;
  readonly #parser: ResponseParser;
  readonly #counter = new Counter();
  readonly #hash = createHash("sha256");
  readonly #kept: Buffer[] = [];
  readonly #socket: Socket;
  readonly #startMs = performance.now();
  #isPrefix = true;
  #headersAfterMs: number | undefined;
  #isPaused = false;
  #end: ResponseEnd | undefined;

  constructor(request: RawRequest) {
    this.#request = request;
    this.#parser = new ResponseParser(request.method ?? "GET", (part) => {
      this.#takeBody(part);
    });
    const isSlow = request.bytesPerSecond !== undefined;
    const readBuffer = isSlow
      ? Buffer.allocUnsafe(
          Math.max(1, Math.round(request.bytesPerSecond / READS_PER_SECOND)),
        )
      : READ_BUFFER;
    const { promise, resolve } = Promise.withResolvers<RawResponse>();
    this.response = promise;
    this.#socket = connect({
      port: request.port,
      host: request.host ?? "127.0.0.1",
      onread: {
        buffer: readBuffer,
        callback: (count: number, buffer: Uint8Array) =>
          this.#read(Buffer.from(buffer.buffer, buffer.byteOffset, count)),
      },
    });
    const timer = setTimeout(() => {
      this.#finish("timeout");
    }, request.timeoutMs ?? 60_000);
    this.#socket.on("error", (error: NodeJS.ErrnoException) => {
      this.#end ??= error.code === "ECONNRESET" ? "rst" : "fin";
    });
    this.#socket.on("end", () => {
      this.#end ??= this.#parser.isEofDelimited ? "eof" : "fin";
    });
    this.#socket.on("close", () => {
      clearTimeout(timer);
      this.#end ??= "fin";
      this.#counter.notify();
      resolve(this.#toResponse(this.#end));
    });
    this.#socket.write(requestBytes(request));
  }

  received(bytes: number, timeoutMs?: number): Promise<void> {
    return this.#until(() => this.bodyBytes >= bytes, timeoutMs);
  }

  answered(timeoutMs?: number): Promise<void> {
    return this.#until(() => this.#headersAfterMs !== undefined, timeoutMs);
  }

  async #until(isReached: () => boolean, timeoutMs?: number): Promise<void> {
    await this.#counter.until(
      () => isReached() || this.#end !== undefined,
      () => `status ${this.#parser.status}, ${this.bodyBytes} bytes came`,
      timeoutMs,
    );
    if (!isReached()) {
      throw new Error(
        `ended (${this.#end}) with status ${this.#parser.status} after ${this.bodyBytes} bytes`,
      );
    }
  }

  /** False pauses the socket. */
  #read(part: Buffer): boolean {
    this.#parser.push(part);
    if (this.#parser.status !== 0 && this.#headersAfterMs === undefined) {
      this.#headersAfterMs = performance.now() - this.#startMs;
    }
    this.#counter.notify();
    if (this.#parser.isComplete) {
      this.#finish("complete");
      return true;
    }
    const { pause, leave, bytesPerSecond } = this.#request;
    if (leave !== undefined && this.bodyBytes >= leave.atByte) {
      this.#finish("left");
      return true;
    }
    if (this.#isPaused) return true;
    if (pause !== undefined && this.bodyBytes >= pause.atByte) {
      this.#isPaused = true;
      void pause.barrier.pass().then(() => this.#socket.resume());
      return false;
    }
    if (bytesPerSecond !== undefined) {
      void delay((1000 * part.length) / bytesPerSecond).then(() =>
        this.#socket.resume(),
      );
      return false;
    }
    return true;
  }

  #takeBody(part: Buffer): void {
    const { body = "keep", expected } = this.#request;
    if (body === "keep") this.#kept.push(Buffer.from(part));
    if (body === "hash") this.#hash.update(part);
    if (body === "compare" && this.#isPrefix) {
      const at = this.bodyBytes;
      this.#isPrefix =
        expected !== undefined &&
        expected.length >= at + part.length &&
        expected.compare(part, 0, part.length, at, at + part.length) === 0;
    }
    this.bodyBytes += part.length;
  }

  #finish(end: ResponseEnd): void {
    this.#end ??= end;
    if (this.#end === "left" && this.#request.leave?.by === "rst") {
      this.#socket.resetAndDestroy();
    } else {
      this.#socket.destroy();
    }
  }

  #toResponse(end: ResponseEnd): RawResponse {
    const { body = "keep" } = this.#request;
    const kept = Buffer.concat(this.#kept);
    return {
      status: this.#parser.status,
      headers: this.#parser.headers(),
      rawHeaders: this.#parser.rawHeaders,
      body: kept,
      bodyBytes: this.bodyBytes,
      sha256:
        body === "hash"
          ? `sha256:${this.#hash.digest("hex")}`
          : body === "keep"
            ? `sha256:${createHash("sha256").update(kept).digest("hex")}`
            : undefined,
      isPrefixOfExpected: body === "compare" ? this.#isPrefix : undefined,
      end,
      surplusBytes: this.#parser.surplusBytes,
      headersAfterMs: this.#headersAfterMs,
      durationMs: performance.now() - this.#startMs,
    };
  }
}

function requestBytes(request: RawRequest): Buffer | string {
  if (request.raw !== undefined) return request.raw;
  const headers: Record<string, string> = {
    Host: `${request.host ?? "127.0.0.1"}:${request.port}`,
    Connection: "close",
    ...request.headers,
  };
  const lines = Object.entries(headers).map(
    ([name, value]) => `${name}: ${value}`,
  );
  const start = `${request.method ?? "GET"} ${request.path} ${request.version ?? "HTTP/1.1"}`;
  return `${[start, ...lines].join("\r\n")}\r\n\r\n`;
}

/** Returns the bytes of a source as one Buffer, for clients to compare with. */
export function wholeBytes(source: ByteSource): Buffer {
  return source.read(0, source.sizeBytes);
}
