import type { Duplex } from "node:stream";

/** A request as it was received. */
export interface WireRequest {
  readonly method: string;
  /** Request target as sent. */
  readonly target: string;
  /** Names in lower case; values of the same name are joined by a comma. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

const HEAD_END = Buffer.from("\r\n\r\n");
const MAX_HEAD_BYTES = 1_048_576;

/** Splits the bytes received on one connection into requests. */
export class WireRequestReader {
  #pending: Buffer = Buffer.alloc(0);
  #isEnded = false;
  #wake: (() => void) | undefined;

  constructor(connection: Duplex) {
    connection.on("data", (part: Buffer) => {
      this.#pending = Buffer.concat([this.#pending, part]);
      this.#wake?.();
    });
    const end = (): void => {
      this.#isEnded = true;
      this.#wake?.();
    };
    connection.on("end", end);
    connection.on("close", end);
  }

  /** Returns the next request, or undefined if the client has closed or does not send HTTP. */
  async next(): Promise<WireRequest | undefined> {
    const headEnd = await this.#find();
    if (headEnd === undefined) return undefined;
    const lines = this.#pending.toString("latin1", 0, headEnd).split("\r\n");
    this.#pending = this.#pending.subarray(headEnd + HEAD_END.length);
    const [method, target] = (lines[0] ?? "").split(" ");
    if (method === undefined || target === undefined) return undefined;
    const headers: Record<string, string> = {};
    for (const line of lines.slice(1)) {
      const colon = line.indexOf(":");
      const name = line.slice(0, colon).toLowerCase();
      const value = line.slice(colon + 1).trim();
      const before = headers[name];
      headers[name] = before === undefined ? value : `${before}, ${value}`;
    }
    const length = Number(headers["content-length"] ?? 0);
    while (this.#pending.length < length) {
      if (this.#isEnded) return undefined;
      await this.#more();
    }
    const body = this.#pending.subarray(0, length);
    this.#pending = this.#pending.subarray(length);
    return { method, target, headers, body };
  }

  async #find(): Promise<number | undefined> {
    for (;;) {
      const at = this.#pending.indexOf(HEAD_END);
      if (at >= 0) return at;
      if (this.#isEnded || this.#pending.length > MAX_HEAD_BYTES) {
        return undefined;
      }
      await this.#more();
    }
  }

  async #more(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    this.#wake = undefined;
  }
}
