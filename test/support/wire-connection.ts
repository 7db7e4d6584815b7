import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { type AfterTest, releaseAfter } from "./after-test.ts";
import { Counter } from "./barrier.ts";

const HEAD_END = "\r\n\r\n";

/** A connection that sends requests as given and reads the responses one at a time. */
export class WireConnection {
  readonly socket: Socket;
  readonly #counter = new Counter();
  #text = "";
  #isEnded = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => {});
    socket.on("data", (part: Buffer) => {
      this.#text += part.toString("latin1");
      this.#counter.notify();
    });
    socket.on("close", () => {
      this.#isEnded = true;
      this.#counter.notify();
    });
  }

  static async open(test: AfterTest, port: number): Promise<WireConnection> {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    releaseAfter(test, () => void socket.destroy());
    const connection = new WireConnection(socket);
    await once(socket, "connect");
    return connection;
  }

  /** Sends a request and returns its response. */
  async ask(head: string): Promise<string> {
    this.socket.write(head, "latin1");
    return this.answer(head.startsWith("HEAD"));
  }

  /** Returns the next complete response (`latin1`); a part of it if the connection ended before. */
  async answer(isHead = false): Promise<string> {
    let length: number | undefined;
    await this.#counter.until(
      () => {
        length = lengthOf(this.#text, isHead);
        return length !== undefined || this.#isEnded;
      },
      () => `so far came ${JSON.stringify(this.#text)}`,
    );
    const answer = this.#text.slice(0, length);
    this.#text = this.#text.slice(answer.length);
    return answer;
  }

  /** Waits until the connection is closed. @returns the bytes not read before (`latin1`) */
  async rest(): Promise<string> {
    await this.#counter.until(
      () => this.#isEnded,
      () => `is open, and so far came ${JSON.stringify(this.#text)}`,
    );
    return this.#text;
  }
}

/** Returns the length of the first response in a text, or undefined if it is not complete. */
function lengthOf(text: string, isHead: boolean): number | undefined {
  const headEnd = text.indexOf(HEAD_END);
  if (headEnd === -1) return undefined;
  const found = /^content-length: (\d+)$/im.exec(text.slice(0, headEnd));
  const isBare = isHead || text.startsWith("HTTP/1.1 304");
  const bodyBytes = isBare ? 0 : Number(found?.[1] ?? 0);
  const length = headEnd + HEAD_END.length + bodyBytes;
  return text.length >= length ? length : undefined;
}

/** Returns a response with the value of its `Date` replaced. */
export function dateless(answer: string): string {
  return answer.replaceAll(/^Date: .*$/gm, "Date: …");
}
