import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { AfterTest } from "./after-test.ts";
import { Child } from "./child-process.ts";
import { tempDir } from "./temp-dir.ts";

/** One line of the registry's access log. */
export interface LoggedRequest {
  readonly method: string;
  /** The request target. */
  readonly target: string;
  readonly status: number;
  readonly bytes: number;
}

export interface RealRegistryOptions {
  /** Sections of its configuration file, as `{ auth: { htpasswd: … } }`; JSON is YAML. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Whether clients may delete; default: no. */
  readonly isDeletable?: boolean;
  /** Folder of the content, to serve what another one stored; default: a new one. */
  readonly sharedWith?: RealRegistry;
}

/** The registry of the Distribution project, on the loopback. */
export class RealRegistry {
  readonly #test: AfterTest;
  readonly #dir: string;
  readonly #options: RealRegistryOptions;
  #child: Child | undefined;
  #host: string | undefined;
  #markCount = 0;
  #firstLine = 0;

  private constructor(
    test: AfterTest,
    dir: string,
    options: RealRegistryOptions,
  ) {
    this.#test = test;
    this.#dir = dir;
    this.#options = options;
  }

  static async start(
    test: AfterTest,
    options: RealRegistryOptions = {},
  ): Promise<RealRegistry> {
    const dir = await tempDir(test, "registry-");
    const registry = new RealRegistry(test, dir, options);
    await registry.start();
    return registry;
  }

  /** Starts again on the same port with the same content. */
  async start(): Promise<void> {
    const root = this.storage;
    await mkdir(root, { recursive: true });
    const file = this.configFile;
    const config = {
      version: "0.1",
      log: { level: "info", formatter: "json" },
      storage: {
        filesystem: { rootdirectory: root },
        delete: { enabled: this.#options.isDeletable === true },
      },
      http: { addr: this.#host ?? "127.0.0.1:0" },
      ...this.#options.config,
    };
    await writeFile(file, JSON.stringify(config));
    this.#child = new Child(this.#test, {
      command: "docker-registry",
      args: ["serve", file],
      env: { OTEL_TRACES_EXPORTER: "none" },
    });
    this.#firstLine = 0;
    this.#host = await this.#child.line(
      (line) => /"msg":"listening on (127\.0\.0\.1:\d+)/.exec(line)?.[1],
    );
  }

  get configFile(): string {
    return join(this.#dir, "config.yml");
  }

  /** The `rootdirectory`. */
  get storage(): string {
    const { sharedWith } = this.#options;
    return sharedWith === undefined
      ? join(this.#dir, "storage")
      : sharedWith.storage;
  }

  /** `127.0.0.1:PORT`. */
  get host(): string {
    if (this.#host === undefined) throw new Error("the registry never ran");
    return this.#host;
  }

  get origin(): string {
    return `http://${this.host}`;
  }

  async stop(): Promise<void> {
    await this.#child?.terminate();
  }

  /** Requests since the start, or since `forgetRequests`. */
  async requests(): Promise<readonly LoggedRequest[]> {
    const child = this.#child;
    if (child === undefined) throw new Error("the registry never ran");
    // A request of our own shows that those before it have been logged.
    this.#markCount += 1;
    const mark = `/v2/?mark=${this.#markCount}`;
    await fetch(this.origin + mark);
    await child.line((line) => line.includes(mark) || undefined);
    return child.lines
      .slice(this.#firstLine)
      .map((line) => parseAccess(line.text))
      .filter((request) => request !== undefined)
      .filter((request) => !request.target.startsWith("/v2/?mark="));
  }

  async forgetRequests(): Promise<void> {
    await this.requests();
    this.#firstLine = this.#child?.lines.length ?? 0;
  }
}

/** The access line is Apache's: `… "GET /v2/ HTTP/1.1" 200 2 …`. */
function parseAccess(line: string): LoggedRequest | undefined {
  const found = /"([A-Z]+) (\S+) HTTP\/1\.[01]" (\d{3}) (\d+|-)/.exec(line);
  if (found === null || line.startsWith("{")) return undefined;
  const [, method = "", target = "", status, bytes] = found;
  return {
    method,
    target,
    status: Number(status),
    bytes: Number(bytes) || 0,
  };
}
