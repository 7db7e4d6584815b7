import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { type AfterTest, releaseAfter } from "./after-test.ts";

/** A connection on which bytes are written as they are; all that is received is kept. */
export class Conversation {
  readonly socket: Socket;
  readonly #parts: Buffer[] = [];

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => {});
    socket.on("data", (part: Buffer) => this.#parts.push(part));
  }

  /** @param ca with it the connection is TLS, to `localhost` */
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

  /** Received so far; a character for each byte. */
  get text(): string {
    return Buffer.concat(this.#parts).toString("latin1");
  }

  /** @returns all that was received when the mirror has closed the connection */
  async rest(): Promise<string> {
    if (!this.socket.closed) await once(this.socket, "close");
    return this.text;
  }
}
