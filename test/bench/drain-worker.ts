import { connect, type Socket } from "node:net";

/*
 * The client of large bodies: a separate process that reads sockets into one buffer and discards the
 * bytes. It implements only as much HTTP as that requires.
 */

export interface DrainOrder {
  readonly host: string;
  readonly port: number;
  /** Paths of the requests, used in turn over all connections. */
  readonly paths: readonly string[];
  readonly connections: number;
  /** Number of requests on each connection; the run ends earlier after `durationMs`. */
  readonly requestsEach: number;
  readonly durationMs?: number;
  /** Rate limit of each connection, for slow readers. */
  readonly bytesPerSecond?: number;
}

export interface DrainReport {
  /** Bytes of bodies. */
  readonly bytes: number;
  readonly seconds: number;
  /** Time from a request to the first byte of its body, for each response. */
  readonly firstByteMs: readonly number[];
  /** Processor time of this process: the cost of the measurement. */
  readonly cpuSeconds: number;
  readonly failure: string | undefined;
}

/** Small enough for the second-level cache; the kernel's copy is then the only cost. */
const buffer = Buffer.allocUnsafeSlow(256 * 1024);
/** A slow reader reads small parts. */
const slowBuffer = buffer.subarray(0, 64 * 1024);

const END_OF_HEAD = "\r\n\r\n";

class Run {
  readonly #order: DrainOrder;
  readonly #firstByteMs: number[] = [];
  readonly #done = Promise.withResolvers<void>();
  readonly #sockets: Socket[] = [];
  #bytes = 0;
  #nextPath = 0;
  #open = 0;
  #failure: string | undefined;

  constructor(order: DrainOrder) {
    this.#order = order;
  }

  async run(): Promise<DrainReport> {
    const { connections, durationMs } = this.#order;
    const starts: (() => void)[] = [];
    await Promise.all(
      Array.from({ length: connections }, async () => {
        starts.push(await this.#connect());
      }),
    );
    const cpu = process.cpuUsage();
    const startMs = performance.now();
    const timer =
      durationMs === undefined
        ? undefined
        : setTimeout(() => this.#done.resolve(), durationMs);
    this.#open = connections;
    for (const start of starts) start();
    await this.#done.promise;
    const seconds = (performance.now() - startMs) / 1000;
    const { user, system } = process.cpuUsage(cpu);
    clearTimeout(timer);
    for (const socket of this.#sockets) socket.destroy();
    return {
      bytes: this.#bytes,
      seconds,
      firstByteMs: this.#firstByteMs,
      cpuSeconds: (user + system) / 1e6,
      failure: this.#failure,
    };
  }

  #fail(reason: string): void {
    this.#failure ??= reason;
    this.#done.resolve();
  }

  /** Opens a connection. @returns function that starts its requests */
  #connect(): Promise<() => void> {
    const { host, port, paths, requestsEach, bytesPerSecond } = this.#order;
    let head = "";
    let missing = -1;
    let left = requestsEach;
    let askedAtMs = 0;
    let isOver = false;
    const ask = (): void => {
      const path = paths[this.#nextPath++ % paths.length] ?? "/";
      left -= 1;
      head = "";
      missing = -1;
      askedAtMs = performance.now();
      socket.write(`GET ${path} HTTP/1.1\r\nHost: ${host}:${port}\r\n\r\n`);
    };
    const take = (bytes: Buffer, size: number): void => {
      let bodyBytes = size;
      if (missing === -1) {
        head += bytes.toString("latin1", 0, size);
        const end = head.indexOf(END_OF_HEAD);
        if (end === -1) return;
        bodyBytes = head.length - end - END_OF_HEAD.length;
        if (!head.startsWith("HTTP/1.1 200")) this.#fail(head.slice(0, 400));
        missing = Number(
          /content-length: (\d+)/i.exec(head)?.[1] ?? Number.NaN,
        );
        head = "";
        if (Number.isNaN(missing)) this.#fail("no length");
        if (bodyBytes > 0)
          this.#firstByteMs.push(performance.now() - askedAtMs);
        else askedAtMs = -askedAtMs;
      } else if (askedAtMs < 0) {
        askedAtMs = -askedAtMs;
        this.#firstByteMs.push(performance.now() - askedAtMs);
      }
      missing -= bodyBytes;
      this.#bytes += bodyBytes;
      if (missing > 0) return;
      if (left > 0) ask();
      else {
        isOver = true;
        this.#open -= 1;
        if (this.#open === 0) this.#done.resolve();
      }
    };
    const { promise, resolve, reject } = Promise.withResolvers<() => void>();
    const socket = connect({
      host,
      port,
      onread: {
        buffer: bytesPerSecond === undefined ? buffer : slowBuffer,
        callback: (size, bytes) => {
          take(bytes as Buffer, size);
          if (bytesPerSecond === undefined) return true;
          setTimeout(() => socket.resume(), (1000 * size) / bytesPerSecond);
          return false;
        },
      },
    });
    socket.once("connect", () => {
      // Requests start only after all connections are open.
      resolve(ask);
    });
    socket.on("error", (error) => {
      reject(error);
      this.#fail(error.message);
    });
    socket.on("close", () => {
      if (!isOver) this.#fail("the connection was closed early");
    });
    this.#sockets.push(socket);
    return promise;
  }
}

process.on("message", (order: DrainOrder) => {
  new Run(order)
    .run()
    .then((report) => process.send?.(report))
    .catch((error: unknown) => {
      process.send?.({
        bytes: 0,
        seconds: 0,
        firstByteMs: [],
        cpuSeconds: 0,
        failure: String(error),
      } satisfies DrainReport);
    });
});
