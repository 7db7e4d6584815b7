import { createServer, type Server, type Socket } from "node:net";
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import type { IssuedCertificate } from "./certificate-authority.ts";
import { type WireRequest, WireRequestReader } from "./wire-request.ts";
import type { AnswerSink } from "./wire-answer.ts";

/** How a listener treats its connections. */
export type ListenerMode = "serve" | "black-hole";

export interface WireListenerOptions {
  /** Default `127.0.0.1`. */
  readonly host?: string;
  readonly tls?: IssuedCertificate;
  /** Answers one request; returns whether the connection may carry another. */
  answer(
    request: WireRequest,
    connection: Omit<AnswerSink, "onBodyBytes">,
  ): Promise<boolean>;
}

/** A socket that speaks HTTP/1.1 without a library: what is written is what is sent. */
export class WireListener {
  /** `black-hole`: connections are accepted, and nothing is read or written; TLS gets no hello. */
  mode: ListenerMode = "serve";
  readonly #options: WireListenerOptions;
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  #port = 0;
  #connectionCount = 0;

  constructor(options: WireListenerOptions) {
    this.#options = options;
  }

  get host(): string {
    return this.#options.host ?? "127.0.0.1";
  }

  get port(): number {
    return this.#port;
  }

  /** `http://127.0.0.1:PORT`, without a trailing slash. */
  get origin(): string {
    const scheme = this.#options.tls === undefined ? "http" : "https";
    return `${scheme}://${this.host}:${this.#port}`;
  }

  /** Number of connections so far. */
  get connectionCount(): number {
    return this.#connectionCount;
  }

  get openConnectionCount(): number {
    return this.#sockets.size;
  }

  /** Listens on a port chosen by the system the first time, on the same one after a stop. */
  async start(): Promise<void> {
    const server = createServer({ noDelay: true }, (socket) => {
      this.#accept(socket);
    });
    server.listen(this.#port, this.host);
    await once(server, "listening");
    const address = server.address();
    if (address === null || typeof address === "string") {
      throw new Error("the listener has no port");
    }
    this.#port = address.port;
    this.#server = server;
  }

  /** Closes every connection and refuses new ones. */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    this.dropConnections();
    if (server === undefined) return;
    await new Promise<void>((resolve) => {
      server.close(() => {
        resolve();
      });
      this.dropConnections();
    });
  }

  /** Closes the open connections, idle ones too; new ones are accepted. */
  dropConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #accept(raw: Socket): void {
    this.#connectionCount += 1;
    this.#sockets.add(raw);
    // A client may disconnect at any time; `close` handles it.
    raw.on("error", () => undefined);
    raw.on("close", () => this.#sockets.delete(raw));
    if (this.mode === "black-hole") {
      raw.pause();
      return;
    }
    const { tls } = this.#options;
    const connection =
      tls === undefined ? raw : new TLSSocket(raw, { isServer: true, ...tls });
    connection.on("error", () => {
      raw.destroy();
    });
    void this.#serve(raw, connection);
  }

  async #serve(raw: Socket, connection: Duplex): Promise<void> {
    const gone = new AbortController();
    raw.on("close", () => {
      gone.abort();
    });
    const reader = new WireRequestReader(connection);
    for (;;) {
      const request = await reader.next();
      if (request === undefined) break;
      const keepsAlive = await this.#options.answer(request, {
        connection,
        gone: gone.signal,
        reset: () => {
          raw.resetAndDestroy();
        },
      });
      if (!keepsAlive) break;
    }
    connection.end();
  }
}
