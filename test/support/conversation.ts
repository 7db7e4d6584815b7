import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { type AfterTest, releaseAfter } from "./after-test.ts";

/** A connection for raw bytes that keeps everything it receives. */
export class Conversation {
  readonly socket: Socket;
  readonly #parts: Buffer[] = [];

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => {});
    socket.on("data", (part: Buffer) => this.#parts.push(part));
  }

  /** @param ca authority in PEM; if given, the connection is TLS to `localhost` */
  static async open(
    test: AfterTest,
    port: number,
    ca?: string,
  ): Promise<Conversation> {
    const host = "127.0.0.1";
    const socket =
      ca === undefined
        ? connect({ port, host, noDelay: true })
        : connectTls({ port, host, ca, servername: "localhost" });
    releaseAfter(test, () => void socket.destroy());
    const conversation = new Conversation(socket);
    await once(socket, ca === undefined ? "connect" : "secureConnect");
    return conversation;
  }

  /** Bytes received so far, one character for each byte. */
  get text(): string {
    return Buffer.concat(this.#parts).toString("latin1");
  }

  /** Waits until the connection is closed. @returns all bytes received on it */
  async rest(): Promise<string> {
    if (!this.socket.closed) await once(this.socket, "close");
    return this.text;
  }
}
