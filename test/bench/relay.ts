import { type AddressInfo, connect, createServer, type Socket } from "node:net";

export interface RelayOptions {
  readonly target: { readonly host: string; readonly port: number };
  /** Time added to a round trip. */
  readonly latencyMs?: number;
  /** Rate of the link towards the client, for all connections together. */
  readonly bytesPerSecond?: number;
}

/** Time by which the link may be ahead of its rate: that of a few packets. */
const MAX_AHEAD_MS = 2;
/** Time that the link may catch up after a late timer, to keep its rate on average. */
const MAX_BEHIND_MS = 10;

/** A link with a given latency and rate in front of a server, in this process. */
export class Relay {
  readonly host = "127.0.0.1";
  readonly #options: RelayOptions;
  readonly #server = createServer({ pauseOnConnect: true }, (client) =>
    this.#join(client),
  );
  readonly #sockets = new Set<Socket>();
  #carriedBytes = 0;
  /** Time at which a link of that rate would have sent the bytes relayed so far. */
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

  /** Bytes sent towards the client so far, including headers. */
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
        // Earlier bytes are still delayed; end after them.
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

/** Does the work after a delay. @returns its result if there is no delay */
function later(delayMs: number, work: () => unknown): boolean {
  if (delayMs === 0) return work() === true;
  setTimeout(work, delayMs);
  return false;
}
