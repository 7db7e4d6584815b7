import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { createServer, type AddressInfo, connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

const START_TIMEOUT_MS = 20_000;
const STOP_TIMEOUT_MS = 15_000;
const REST_TIMEOUT_MS = 10_000;
/** Number of consecutive checks, `REST_CHECK_MS` apart, that must find the server idle. */
const REST_CHECKS = 3;
const REST_CHECK_MS = 100;
/** Unit of processor time in `/proc`, the same on every Linux. */
const TICKS_PER_SECOND = 100;

export interface ServerOptions {
  readonly command: string;
  readonly args: readonly string[];
  readonly port: number;
  readonly env?: Readonly<Record<string, string>>;
  /** File for its standard error; its standard output is written to `/dev/null`. */
  readonly errorFile: string;
}

/** A measured program: a process that listens on the loopback. */
export class Server {
  readonly host = "127.0.0.1";
  readonly port: number;
  readonly #process: ChildProcess;
  readonly #options: ServerOptions;

  private constructor(options: ServerOptions, child: ChildProcess) {
    this.port = options.port;
    this.#options = options;
    this.#process = child;
  }

  /** Starts the program and waits until it accepts connections. */
  static async start(options: ServerOptions): Promise<Server> {
    const nowhere = openSync("/dev/null", "w");
    const errors = openSync(options.errorFile, "a");
    const child = spawn(options.command, options.args, {
      env: { ...process.env, ...options.env },
      stdio: ["ignore", nowhere, errors],
    });
    closeSync(nowhere);
    closeSync(errors);
    let failure: Error | undefined;
    child.on("error", (error) => {
      failure = error;
    });
    const server = new Server(options, child);
    const endMs = performance.now() + START_TIMEOUT_MS;
    while (!(await takesConnections(options.port))) {
      if (failure !== undefined) throw failure;
      if (!server.isRunning || performance.now() > endMs) {
        await server.stop();
        throw new Error(`${options.command} did not start:\n${server.said}`);
      }
      await delay(20);
    }
    return server;
  }

  get authority(): string {
    return `${this.host}:${this.port}`;
  }

  get origin(): string {
    return `http://${this.authority}`;
  }

  get isRunning(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  /** Last part of its standard error. */
  get said(): string {
    return readFileSync(this.#options.errorFile, "utf8").slice(-4_000);
  }

  /** Processor time so far, including its children, in which nginx works. */
  cpuSeconds(): number {
    return this.#pids()
      .map((pid) => {
        const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
        // The second field is the name in parentheses, which may contain spaces.
        const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
        return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
      })
      .reduce((sum, seconds) => sum + seconds, 0);
  }

  /**
   * Resolves when the server is idle, or after {@link REST_TIMEOUT_MS}: docker-registry stores and
   * hashes a blob, and Entrepot syncs it, after the client has received all of it.
   */
  async rest(): Promise<void> {
    const endMs = performance.now() + REST_TIMEOUT_MS;
    let before = this.cpuSeconds();
    let quietChecks = 0;
    while (quietChecks < REST_CHECKS && performance.now() < endMs) {
      await delay(REST_CHECK_MS);
      const now = this.cpuSeconds();
      quietChecks = now - before < 1.5 / TICKS_PER_SECOND ? quietChecks + 1 : 0;
      before = now;
    }
  }

  /** Current resident memory, including its children. */
  rssBytes(): number {
    return this.#pids()
      .map((pid) => {
        const status = readFileSync(`/proc/${pid}/status`, "utf8");
        const [, kibibytes = "0"] = /^VmRSS:\s+(\d+) kB$/m.exec(status) ?? [];
        return Number(kibibytes) * 1024;
      })
      .reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Sends SIGTERM, and SIGKILL if the process does not end. */
  async stop(): Promise<void> {
    if (!this.isRunning || this.#process.pid === undefined) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#process.once("exit", () => resolve());
    this.#process.kill("SIGTERM");
    const timer = setTimeout(
      () => this.#process.kill("SIGKILL"),
      STOP_TIMEOUT_MS,
    );
    await promise;
    clearTimeout(timer);
  }

  #pids(): number[] {
    const { pid } = this.#process;
    if (pid === undefined) return [];
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
    return [pid, ...(children.match(/\d+/g) ?? []).map(Number)];
  }
}

/** Returns a free port of the loopback. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function takesConnections(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
