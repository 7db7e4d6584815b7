import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { AfterTest } from "./after-test.ts";
import { Child, type ChildExit } from "./child-process.ts";
import { tempDir } from "./temp-dir.ts";

const SOURCES = join(import.meta.dirname, "../../src/main.ts");

export interface ChildMirrorOptions {
  /**
   * Keys of the configuration file, merged over the defaults: listeners on the loopback with ports
   * chosen by the system, and a storage root in the test's folder.
   */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Folder of the configuration and the storage; default: a temporary one. */
  readonly dir?: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Main file of the program; default: that of the sources. */
  readonly main?: string;
  /** Options of `node`. */
  readonly nodeArgs?: readonly string[];
  /** Put before the command: `["prlimit", "--nofile=64"]`, `["strace", …]`. */
  readonly wrapper?: readonly string[];
  /** After `serve --config F`. */
  readonly args?: readonly string[];
}

interface Listening {
  readonly registry: string;
  readonly operator: string | undefined;
}

/** The mirror in a process of its own, as users run it. */
export class ChildMirror {
  /** Storage root, unless the configuration names another. */
  readonly root: string;
  readonly #test: AfterTest;
  readonly #options: ChildMirrorOptions;
  readonly #dir: string;
  #child: Child | undefined;
  #listening: Listening | undefined;

  private constructor(
    test: AfterTest,
    dir: string,
    options: ChildMirrorOptions,
  ) {
    this.#test = test;
    this.#options = options;
    this.#dir = dir;
    this.root = join(dir, "data");
  }

  /** Resolves when the mirror listens and is ready. */
  static async start(
    test: AfterTest,
    options: ChildMirrorOptions = {},
  ): Promise<ChildMirror> {
    const dir = options.dir ?? (await tempDir(test));
    const mirror = new ChildMirror(test, dir, options);
    await mirror.start();
    return mirror;
  }

  /** Starts the mirror again on the same ports with the same storage. */
  async start(): Promise<void> {
    const { nodeArgs = [], args = [], wrapper = [], env } = this.#options;
    await mkdir(this.#dir, { recursive: true });
    const file = this.configFile;
    const [command = process.execPath, ...rest] = [
      ...wrapper,
      process.execPath,
      ...nodeArgs,
      this.#options.main ?? SOURCES,
      "serve",
      "--config",
      file,
      ...args,
    ];
    // JSON is YAML 1.2.
    // A file that contains a password must not be readable by others.
    const mode = 0o600;
    await writeFile(file, JSON.stringify(this.#config(), null, 2), { mode });
    this.#child = new Child(this.#test, {
      command,
      args: rest,
      isWrapper: wrapper.length > 0,
      // A variable of the tests, of which the mirror would warn.
      env: { ...(env ?? process.env), ENTREPOT_SOAK: undefined },
    });
    this.#listening = await this.#child.line(parseListening);
    if (this.#listening.operator !== undefined) await this.ready();
  }

  /** Path of the configuration file, for commands too. */
  get configFile(): string {
    return join(this.#dir, "entrepot.yaml");
  }

  get child(): Child {
    if (this.#child === undefined) throw new Error("the mirror never ran");
    return this.#child;
  }

  /** `127.0.0.1:PORT` of the registry API. */
  get host(): string {
    return this.#address("registry");
  }

  get port(): number {
    return portOf(this.host);
  }

  /** `http://127.0.0.1:PORT` of the registry API. */
  get origin(): string {
    return `http://${this.host}`;
  }

  /** `http://127.0.0.1:PORT` of the operator API. */
  get operatorOrigin(): string {
    return `http://${this.#address("operator")}`;
  }

  /** Returns the records of its log so far, without lines that are not JSON. */
  get logs(): readonly Readonly<Record<string, unknown>>[] {
    return this.child.lines
      .map((line) => parseRecord(line.text))
      .filter((record) => record !== undefined);
  }

  /** Resolves when `/readyz` answers 200. */
  async ready(timeoutMs = 15_000): Promise<void> {
    const endMs = performance.now() + timeoutMs;
    let last = "nothing";
    while (performance.now() < endMs && this.child.isRunning) {
      try {
        const response = await fetch(`${this.operatorOrigin}/readyz`, {
          signal: AbortSignal.timeout(timeoutMs),
        });
        if (response.ok) {
          await response.arrayBuffer();
          return;
        }
        last = `${response.status} ${await response.text()}`;
      } catch (error) {
        last = String(error);
      }
      await delay(25);
    }
    throw new Error(`not ready (${last}):\n${this.child.output()}`);
  }

  /** The text of `/metrics`. */
  async metrics(): Promise<string> {
    const response = await fetch(`${this.operatorOrigin}/metrics`);
    return response.text();
  }

  /** Ends the process by SIGKILL, like a crash. */
  async kill(): Promise<ChildExit> {
    return this.child.kill();
  }

  /** Sends SIGTERM and waits for the end. */
  async terminate(timeoutMs?: number): Promise<ChildExit> {
    return this.child.terminate(timeoutMs);
  }

  /** Stops the mirror gracefully and starts it on the same ports. */
  async restart(): Promise<void> {
    await this.terminate();
    await this.start();
  }

  #address(listener: keyof Listening): string {
    const address = this.#listening?.[listener];
    if (address === undefined) throw new Error(`no ${listener} listens`);
    return address;
  }

  #config(): Record<string, unknown> {
    const before = this.#listening;
    return {
      listen: before?.registry ?? "127.0.0.1:0",
      operator: { listen: before?.operator ?? "127.0.0.1:0" },
      storage: { root: this.root },
      ...this.#options.config,
    };
  }
}

/** Returns the configuration of a mirror whose only registry stands for Docker Hub. */
export function hubConfig(
  ...endpoints: readonly string[]
): Record<string, unknown> {
  return { upstreams: { "docker.io": { default: true, endpoints } } };
}

function parseListening(line: string): Listening | undefined {
  const record = parseRecord(line);
  if (record?.["msg"] !== "the mirror is listening") return undefined;
  const [registry] = record["listen"] as string[];
  const operator = record["operator"];
  if (registry === undefined) return undefined;
  return {
    registry,
    operator: typeof operator === "string" ? operator : undefined,
  };
}

function parseRecord(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith("{")) return undefined;
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

function portOf(address: string): number {
  return Number(address.slice(address.lastIndexOf(":") + 1));
}
