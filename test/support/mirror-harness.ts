import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { rm, writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { type App, type AppOverrides, buildApp } from "../../src/app/app.ts";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import type {
  AccessConfig,
  Config,
  ServerTlsConfig,
  UpstreamConfig,
} from "../../src/config/config.ts";
import type { Digest } from "../../src/oci/digest.ts";
import { createLogger } from "../../src/telemetry/logger.ts";
import { type AfterTest, releaseAfter } from "./after-test.ts";
import { Counter } from "./barrier.ts";
import { FakeClock } from "./fake-clock.ts";
import {
  type RawExchange,
  type RawRequest,
  type RawResponse,
  startRequest,
} from "./raw-client.ts";
import type { ScriptedUpstream } from "./scripted-upstream.ts";
import { tempDir } from "./temp-dir.ts";
import { DEFAULT_CONFIG } from "./upstream-defaults.ts";
import { neverProbe, upstreamConfig } from "./upstream-harness.ts";
import type { Schedule } from "../../src/telemetry/clock.ts";

export interface TestMirrorOptions {
  readonly offline?: boolean;
  /** How long a request waits for an upstream before it gets a stale answer. */
  readonly patienceMs?: number;
  readonly logLevel?: Config["log"]["level"];
  /** Limits of the storage; default none. */
  readonly eviction?: Partial<Config["eviction"]>;
  readonly access?: AccessConfig;
  readonly tls?: ServerTlsConfig;
  /** Other keys of the configuration. */
  readonly config?: Partial<
    Pick<
      Config,
      | "audit"
      | "hosted"
      | "limits"
      | "notifications"
      | "operator"
      | "scrub"
      | "trustedProxies"
      | "upstreamTemplates"
      | "warm"
    >
  >;
  readonly scrubSchedule?: AppOverrides["scrubSchedule"];
  /** Default: failed endpoints are not probed in the background. */
  readonly probeSchedule?: AppOverrides["probeSchedule"];
  /**
   * Schedules the background fetches of an index's children; `default`: as in production. Absent:
   * never, so that a test counts only the requests that its clients cause.
   */
  readonly childrenSchedule?: Schedule | "default";
  /** Schedules the collection and the retention of hosted repositories; default: as in production. */
  readonly hostedSchedule?: Schedule;
  /** Schedules warm lists and the waits of warm jobs; default: as in production. */
  readonly warmSchedule?: Schedule;
  /** Schedules the expiry of uploads; default: as in production. */
  readonly uploadSchedule?: Schedule;
  /** Default: a clock that only the test moves. */
  readonly clock?: AppOverrides["clock"];
}

/** Returns the configuration of a scripted upstream. */
export function upstreamOf(
  upstream: Pick<ScriptedUpstream, "origin">,
  overrides: Partial<UpstreamConfig> = {},
): UpstreamConfig {
  return upstreamConfig([upstream.origin], overrides);
}

const never: Schedule = () => () => undefined;

function mirrorConfig(
  root: string,
  upstreams: readonly UpstreamConfig[],
  offline = false,
): Config {
  const anyPort = { host: "127.0.0.1", port: 0 };
  return {
    ...DEFAULT_CONFIG,
    listen: [anyPort],
    operator: { listen: anyPort },
    storage: { root },
    eviction: {
      ...DEFAULT_CONFIG.eviction,
      maxSize: { bytes: Number.MAX_SAFE_INTEGER },
      minFree: { bytes: 0 },
      maxIdleMs: Infinity,
      keep: [],
    },
    scrub: { ...DEFAULT_CONFIG.scrub, dailyShare: 0, onReadMs: Infinity },
    offline,
    upstreams,
  };
}

/** @see https://nodejs.org/api/diagnostics_channel.html#built-in-channels */
const REQUEST_START = "http.server.request.start";

type Ask = Omit<RawRequest, "port" | "path">;

/** The whole program in this process, on real sockets, with its own storage root. */
export class TestMirror {
  readonly root: string;
  readonly clock: FakeClock;
  /** The lines of the log, parsed. */
  readonly log: Record<string, unknown>[] = [];
  /** Number of request heads of the registry API that Node's parser has read. */
  readHeads = 0;
  readonly #overrides: TestMirrorOptions;
  #config: Config;
  readonly #logged = new Counter();
  readonly #answering = new Set<ServerResponse>();
  readonly #asked = new Counter();
  #app: App | undefined;
  #port = 0;
  #operatorPort = 0;

  constructor(
    root: string,
    upstreams: readonly UpstreamConfig[],
    options: TestMirrorOptions,
  ) {
    this.root = root;
    this.clock = new FakeClock();
    this.#overrides = options;
    const config = mirrorConfig(root, upstreams, options.offline);
    const { access, logLevel: level = config.log.level, tls } = options;
    this.#config = {
      ...config,
      ...(access === undefined ? {} : { access }),
      ...(tls === undefined ? {} : { tls }),
      eviction: { ...config.eviction, ...options.eviction },
      log: { ...config.log, level },
      ...options.config,
    };
  }

  get port(): number {
    return this.#port;
  }

  get operatorPort(): number {
    return this.#operatorPort;
  }

  /** `http://127.0.0.1:PORT` of the operator API. */
  get operatorOrigin(): string {
    return `http://127.0.0.1:${this.#operatorPort}`;
  }

  /** Sends a request to the operator API and returns its JSON, whatever the status. */
  async operate(
    method: string,
    path: string,
    body?: unknown,
  ): Promise<{ readonly status: number; readonly body: unknown }> {
    const response = await fetch(`${this.operatorOrigin}/api/v1${path}`, {
      method,
      ...(body === undefined
        ? {}
        : {
            body: JSON.stringify(body),
            headers: { "content-type": "application/json" },
          }),
    });
    return { status: response.status, body: await response.json() };
  }

  async open(): Promise<void> {
    const {
      clock = this.clock,
      patienceMs,
      probeSchedule = neverProbe,
      scrubSchedule,
      hostedSchedule,
      warmSchedule,
      uploadSchedule,
    } = this.#overrides;
    const { childrenSchedule = never } = this.#overrides;
    const log = createLogger(this.#config.log, {
      write: (line) => {
        this.log.push(JSON.parse(line) as Record<string, unknown>);
        this.#logged.notify();
      },
    });
    this.#app = await buildApp(this.#config, {
      clock,
      log,
      probeSchedule,
      ...(patienceMs === undefined ? {} : { patienceMs }),
      ...(scrubSchedule === undefined ? {} : { scrubSchedule }),
      ...(hostedSchedule === undefined ? {} : { hostedSchedule }),
      ...(warmSchedule === undefined ? {} : { warmSchedule }),
      ...(uploadSchedule === undefined ? {} : { uploadSchedule }),
      ...(childrenSchedule === "default" ? {} : { childrenSchedule }),
    });
    const { listen, operator } = await this.#app.listen();
    this.#port = portOf(listen[0]);
    this.#operatorPort = portOf(operator);
    subscribe(REQUEST_START, this.#onRequest);
  }

  async close(): Promise<void> {
    await this.#app?.close();
    this.#app = undefined;
    unsubscribe(REQUEST_START, this.#onRequest);
  }

  readonly #onRequest = (message: unknown): void => {
    const { response, socket } = message as {
      readonly response: ServerResponse;
      readonly socket: Socket;
    };
    if (socket.localPort !== this.#port) return;
    this.readHeads += 1;
    this.#answering.add(response);
    response.once("close", () => this.#answering.delete(response));
    this.#asked.notify();
  };

  /** Restarts the mirror on the same root with a changed configuration. */
  async restart(
    changed: Partial<
      Pick<
        Config,
        | "access"
        | "eviction"
        | "hosted"
        | "listen"
        | "offline"
        | "operator"
        | "upstreams"
      >
    > = {},
  ): Promise<void> {
    await this.close();
    this.#config = { ...this.#config, ...changed };
    await this.open();
  }

  /** Reloads with a changed configuration. @param isAccessGone whether `access` is removed */
  async reload(
    changed: Partial<Omit<Config, "listen" | "storage">>,
    isAccessGone = false,
  ): Promise<readonly string[]> {
    const { access, ...others } = { ...this.#config, ...changed };
    const config: Config =
      isAccessGone || access === undefined ? others : { ...others, access };
    const keys = (await this.#app?.reload(config)) ?? [];
    this.#config = config;
    return keys;
  }

  start(path: string, ask: Ask = {}): RawExchange {
    return startRequest({ port: this.#port, path, ...ask });
  }

  get(path: string, headers: RawRequest["headers"] = {}): Promise<RawResponse> {
    return this.start(path, { headers }).response;
  }

  head(
    path: string,
    headers: RawRequest["headers"] = {},
  ): Promise<RawResponse> {
    return this.start(path, { method: "HEAD", headers }).response;
  }

  /** Sends the text unchanged. */
  raw(bytes: string | Buffer): Promise<RawResponse> {
    return this.start("", { raw: bytes }).response;
  }

  /**
   * Repeats a request until the answer is as wanted: for work that the mirror does in the background
   * after it has answered.
   */
  async answersWith(
    path: string,
    isWanted: (response: RawResponse) => boolean,
  ): Promise<RawResponse> {
    for (let left = 100; ; left--) {
      const response = await this.get(path);
      if (isWanted(response)) return response;
      if (left === 0) throw new Error(`${path}: ${response.status} still`);
    }
  }

  /** Resolves when so many requests wait in the mirror for their answers. */
  async asked(count: number): Promise<void> {
    await this.#asked.until(
      () => this.#answering.size >= count,
      () => `${this.#answering.size} of ${count} requests wait`,
    );
    // By then their common look-ups are done.
    await setImmediate();
  }

  /**
   * Resolves when no fill is running: the blob is in the index shortly after the client has received
   * its last byte.
   */
  async settled(): Promise<void> {
    for (;;) {
      const lines = this.log.length;
      const running = await this.#app?.metrics.fillsInProgress.get();
      if (running?.values.every(({ value }) => value === 0) ?? true) return;
      await this.#logged.until(
        () =>
          this.log
            .slice(lines)
            .some(({ msg }) => msg === "a blob fill has ended"),
        () => "a fill still runs",
      );
    }
  }

  /** Sends a request to the operator's listener. */
  operator(path: string): Promise<RawResponse> {
    return startRequest({ port: this.#operatorPort, path }).response;
  }

  /** Returns the value of one series of `/metrics`; 0 if it is absent. */
  async metric(series: string): Promise<number> {
    const line = (await this.metrics())
      .split("\n")
      .find((one) => one.startsWith(`${series} `));
    return line === undefined ? 0 : Number(line.slice(series.length + 1));
  }

  /** Makes every write fail, by a file in place of the partial folder. */
  async loseStorage(): Promise<void> {
    const { partialFolder } = diskLayout(this.root);
    // Files of the start may still be created and removed in it.
    await rm(partialFolder, {
      recursive: true,
      maxRetries: 20,
      retryDelay: 25,
    });
    await writeFile(partialFolder, "");
  }

  /** Returns the text of `/metrics`. */
  async metrics(): Promise<string> {
    const { body } = await this.operator("/metrics");
    return body.toString();
  }

  /** Resolves when the log has a line with that message. */
  logged(message: string): Promise<void> {
    return this.#logged.until(
      () => this.log.some(({ msg }) => msg === message),
      () => `"${message}" was not logged`,
    );
  }

  /** Resolves when such a request has been logged; the mirror has then finished with its client. */
  requested(kind: string): Promise<void> {
    return this.#logged.until(
      () => this.log.some((line) => line["kind"] === kind),
      () => `no request for a ${kind} was logged`,
    );
  }

  /** Returns the path of a published blob. */
  blobFile(digest: Digest): string {
    return diskLayout(this.root).blobFile(digest);
  }
}

/** Starts a mirror of these upstreams; closed with the test. */
export async function startMirror(
  test: AfterTest,
  upstreams: readonly UpstreamConfig[],
  options: TestMirrorOptions = {},
): Promise<TestMirror> {
  const root = join(await tempDir(test), "data");
  const mirror = new TestMirror(root, upstreams, options);
  releaseAfter(test, () => mirror.close());
  await mirror.open();
  return mirror;
}

/** Returns the code of an error answer. */
export function errorCode(response: RawResponse): string | undefined {
  return firstError(response)?.code;
}

export function errorDetail(response: RawResponse): string | undefined {
  return firstError(response)?.detail;
}

function firstError(
  response: RawResponse,
): { readonly code?: string; readonly detail?: string } | undefined {
  const { errors } = JSON.parse(response.body.toString()) as {
    readonly errors?: readonly { code?: string; detail?: string }[];
  };
  return errors?.[0];
}

/** Returns `Cache-Status` without the name of the cache. */
export function cacheStatusOf(response: RawResponse): string | undefined {
  return response.headers["cache-status"]?.replace(/^entrepot; /, "");
}

function portOf(address: string | undefined): number {
  return Number(/:(\d+)$/.exec(address ?? "")?.[1]);
}
