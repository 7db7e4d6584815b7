import { type AddressInfo, connect, createServer, type Socket } from "node:net";

export interface RelayOptions {
  readonly target: { readonly host: string; readonly port: number };
  /** A round trip takes so much longer. */
  readonly latencyMs?: number;
  /** Of the link: all connections together, towards the client. */
  readonly bytesPerSecond?: number;
}

/** What the link may be ahead of its rate: a few packets' worth. */
const MAX_AHEAD_MS = 2;
/** What it may catch up after a late timer, so that the rate holds on average. */
const MAX_BEHIND_MS = 10;

/** A link of a chosen length and width in front of a server, in this process. */
export class Relay {
  readonly host = "127.0.0.1";
  readonly #options: RelayOptions;
  readonly #server = createServer({ pauseOnConnect: true }, (client) =>
    this.#join(client),
  );
  readonly #sockets = new Set<Socket>();
  #carriedBytes = 0;
  /** When the bytes that were let through would have left a link of that width. */
  #linkFreeAtMs = 0;

  private constructor(options: RelayOptions) {
    this.#options = options;
  }

  static async start(options: RelayOptions): Promise<Relay> {
    const relay = new Relay(options);
    await new Promise<void>((resolve, reject) => {
      relay.#server.once("error", reject);
      relay.#server.listen(0, relay.host, resolve);
    });
    return relay;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Towards the client so far, headers included. */
  get carriedBytes(): number {
    return this.#carriedBytes;
  }

  get origin(): string {
    return `http://${this.host}:${this.port}`;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #join(client: Socket): void {
    const server = connect({ ...this.#options.target, noDelay: true });
    client.setNoDelay(true);
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        this.#sockets.delete(socket);
        const other = socket === client ? server : client;
        // What came before is still on its way.
        later(this.#delayMs, () => other.end());
      });
    }
    server.on("data", (chunk: Buffer) => {
      this.#carriedBytes += chunk.length;
    });
    this.#carry(client, server, Infinity);
    this.#carry(server, client, this.#options.bytesPerSecond ?? Infinity);
  }

  #carry(from: Socket, to: Socket, bytesPerSecond: number): void {
    from.on("data", (chunk: Buffer) => {
      const waitMs = this.#waitMs(chunk.length, bytesPerSecond);
      const isFull = later(
        this.#delayMs,
        () => to.writable && !to.write(chunk),
      );
      if (waitMs > MAX_AHEAD_MS) {
        from.pause();
        setTimeout(() => from.resume(), waitMs);
      } else if (isFull) {
        from.pause();
        to.once("drain", () => from.resume());
      }
    });
    from.on("end", () => later(this.#delayMs, () => to.end()));
    from.resume();
  }

  get #delayMs(): number {
    return (this.#options.latencyMs ?? 0) / 2;
  }

  #waitMs(bytes: number, bytesPerSecond: number): number {
    if (bytesPerSecond === Infinity) return 0;
    const nowMs = performance.now();
    this.#linkFreeAtMs =
      Math.max(nowMs - MAX_BEHIND_MS, this.#linkFreeAtMs) +
      (1000 * bytes) / bytesPerSecond;
    return this.#linkFreeAtMs - nowMs;
  }
}

/** @returns the result of the work if there is no delay */
function later(delayMs: number, work: () => unknown): boolean {
  if (delayMs === 0) return work() === true;
  setTimeout(work, delayMs);
  return false;
}
