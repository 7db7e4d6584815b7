import type { IncomingMessage, ServerResponse } from "node:http";
import {
  type BodyCut,
  BrokenUploadBody,
  type UploadBody,
} from "../../hosted/uploads/upload-body.ts";

/** A client that sends nothing for this long is cut off. */
const NO_PROGRESS_MS = 60_000;

/** Bytes received ahead while earlier ones are stored; further bytes stay in the buffers of the system. */
const AHEAD_BYTES = 256 * 1024;

/** The body of a request; nothing is received before the first read. */
export class RequestBody implements UploadBody {
  readonly lengthBytes: number | undefined;
  progressedAtMs: number;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #monotonicMs: () => number;
  readonly #noProgressMs: number;
  #chunks: Uint8Array[] = [];
  #waitingBytes = 0;
  #isStarted = false;
  #hasEnded = false;
  #broken: BrokenUploadBody | undefined;
  #waiter: (() => void) | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    monotonicMs: () => number,
    noProgressMs: number = NO_PROGRESS_MS,
  ) {
    this.#request = request;
    this.#response = response;
    this.#monotonicMs = monotonicMs;
    this.#noProgressMs = noProgressMs;
    this.lengthBytes = lengthOf(request);
    this.progressedAtMs = monotonicMs();
  }

  get hasLeft(): boolean {
    return this.#broken?.reason === "left";
  }

  async read(): Promise<readonly Uint8Array[] | undefined> {
    this.#start();
    while (this.#chunks.length === 0) {
      if (this.#broken !== undefined) throw this.#broken;
      if (this.#hasEnded) return undefined;
      await this.#more();
    }
    const chunks = this.#chunks;
    this.#chunks = [];
    this.#waitingBytes = 0;
    this.#request.resume();
    return chunks;
  }

  /** Receives nothing more; called when the request has been handled, whatever the outcome. */
  release(): void {
    this.#stop();
    this.#chunks = [];
  }

  cut(reason: BodyCut): void {
    if (this.#hasEnded || this.#broken !== undefined) return;
    this.#broken = new BrokenUploadBody(reason);
    this.#stop();
  }

  #start(): void {
    if (this.#isStarted || this.#broken !== undefined) return;
    this.#isStarted = true;
    const request = this.#request;
    if (request.destroyed && !request.complete) {
      this.cut("left");
      return;
    }
    if (request.headers.expect !== undefined) this.#response.writeContinue();
    request.on("data", this.#onData);
    request.once("end", this.#onEnd);
    request.once("close", this.#onLeft);
    request.once("error", this.#onLeft);
    // A client may end its sending side and still wait for the response.
    request.socket.once("end", this.#onLeft);
    if (request.socket.readableEnded && !request.complete) this.#onLeft();
  }

  /** Stops receiving; further bytes are discarded with the connection. */
  #stop(): void {
    clearTimeout(this.#timer);
    const request = this.#request;
    request.off("data", this.#onData);
    request.off("end", this.#onEnd);
    request.off("close", this.#onLeft);
    request.socket.off("end", this.#onLeft);
    if (!this.#hasEnded) request.pause();
    this.#waiter?.();
  }

  readonly #onData = (chunk: Buffer): void => {
    this.progressedAtMs = this.#monotonicMs();
    this.#chunks.push(chunk);
    this.#waitingBytes += chunk.length;
    if (this.#waitingBytes >= AHEAD_BYTES) this.#request.pause();
    this.#waiter?.();
  };

  readonly #onEnd = (): void => {
    this.#hasEnded = true;
    this.#stop();
  };

  readonly #onLeft = (): void => {
    // The bytes that arrived before are right: the client continues after them.
    if (!this.#hasEnded && this.#broken === undefined) this.#request.read();
    this.cut("left");
  };

  /** Waits for bytes or the end, with a bound. */
  async #more(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiter = () => {
      this.#waiter = undefined;
      resolve();
    };
    if (this.#timer === undefined) {
      this.#timer = setTimeout(() => {
        if (this.#waiter !== undefined) this.cut("stalled");
      }, this.#noProgressMs);
    } else {
      this.#timer.refresh();
    }
    await promise;
  }
}

/** A body of unknown size is sent in chunks; without either header there is none. */
function lengthOf({ headers }: IncomingMessage): number | undefined {
  return headers["transfer-encoding"] === undefined
    ? Number(headers["content-length"] ?? 0)
    : undefined;
}
