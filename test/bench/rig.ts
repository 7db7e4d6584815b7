import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Drain } from "./drain.ts";
import { MANIFEST_TYPE, RegistryFiles } from "./registry-files.ts";
import { Relay, type RelayOptions } from "./relay.ts";
import { freePort, Server } from "./server.ts";
import { touchMemory } from "./touched-memory.ts";

const MAIN = join(import.meta.dirname, "../../dist/main.js");

export type ProfileKind = "cpu" | "heap";

export interface RigOptions {
  /** Number of rounds of each figure; a figure may limit or raise it. */
  readonly rounds: number;
  /** Link between the upstream and its clients, in figures without a link of their own. */
  readonly link: Omit<RelayOptions, "target"> | undefined;
  /** Whether memory is touched before turns that allocate it: see {@link touchMemory}. */
  readonly touchesMemory: boolean;
  /** Profiler to run Entrepot under, and the folder for its profiles. */
  readonly profile:
    { readonly kind: ProfileKind; readonly folder: string } | undefined;
}

export interface EntrepotOptions {
  /** Origin of its upstream; absent: the configuration names the upstreams. */
  readonly origin?: string;
  /** Keys that override its configuration. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly root?: string;
}

/** Address of a server. */
export interface Origin {
  readonly host: string;
  readonly port: number;
  readonly origin: string;
}

type Release = () => Promise<unknown> | void;

/** Servers of one figure, in a folder of their own that is removed after it. */
export class Rig {
  readonly dir: string;
  readonly options: RigOptions;
  readonly drain = new Drain();
  /** Content of the upstream. */
  readonly files: RegistryFiles;
  readonly #releases: Release[] = [];
  readonly #servers: Server[] = [];
  #count = 0;

  private constructor(dir: string, options: RigOptions) {
    this.dir = dir;
    this.options = options;
    this.files = new RegistryFiles(join(dir, "upstream"));
  }

  static async open(options: RigOptions): Promise<Rig> {
    return new Rig(await mkdtemp(join(tmpdir(), "bench-")), options);
  }

  async close(): Promise<void> {
    this.drain.stop();
    for (const release of this.#releases.toReversed()) await release();
    await rm(this.dir, { recursive: true, force: true, maxRetries: 3 });
  }

  get rounds(): number {
    return this.options.rounds;
  }

  /**
   * Prepares a turn that allocates memory. Waits until work that the previous contestant left is done:
   * it would slow down the next one in the round, which is always the same.
   */
  async prepareTurn(): Promise<void> {
    await Promise.all(this.#servers.map((server) => server.rest()));
    if (this.options.touchesMemory) touchMemory(this.dir);
  }

  onClose(release: Release): void {
    this.#releases.push(release);
  }

  /** Creates an empty folder. */
  async folder(name: string): Promise<string> {
    this.#count += 1;
    const folder = join(this.dir, `${name}-${this.#count}`);
    await mkdir(folder, { recursive: true });
    return folder;
  }

  /** Starts Debian's docker-registry on {@link files}, reached through the requested link. */
  async startUpstream(): Promise<Origin> {
    const server = await this.#startRegistry(this.files.root, {});
    const { link } = this.options;
    return link === undefined ? server : this.startRelay(server, link);
  }

  async startRelay(
    target: Origin,
    link: Omit<RelayOptions, "target">,
  ): Promise<Relay> {
    const relay = await Relay.start({ target, ...link });
    this.onClose(() => relay.stop());
    return relay;
  }

  /** Starts docker-registry as a pull-through cache; its logs are off, in its favour. */
  async startRegistryProxy(origin: string): Promise<Server> {
    return this.#startRegistry(await this.folder("proxy"), {
      proxy: { remoteurl: origin },
    });
  }

  /** Starts docker-registry to push to; its logs are off, in its favour. */
  async startRegistry(): Promise<Server> {
    const root = await this.folder("registry");
    return this.#startRegistry(root, {
      storage: {
        filesystem: { rootdirectory: root },
        delete: { enabled: true },
      },
    });
  }

  /** Starts nginx as shipped by Debian (sendfile); its access log is off, in its favour. */
  async startNginx(options: {
    readonly root: string;
    readonly workers?: number;
    readonly tls?: { readonly certificate: string; readonly key: string };
  }): Promise<Server> {
    const dir = await this.folder("nginx");
    const port = await freePort();
    const { root, workers, tls } = options;
    const listen =
      tls === undefined
        ? `listen 127.0.0.1:${port};`
        : `listen 127.0.0.1:${port} ssl;
           ssl_certificate ${tls.certificate}; ssl_certificate_key ${tls.key};`;
    const file = join(dir, "nginx.conf");
    await writeFile(
      file,
      `user root; daemon off; worker_processes ${workers ?? "auto"};
       pid ${dir}/nginx.pid; error_log stderr error;
       events { worker_connections 4096; }
       http {
         access_log off; sendfile on; tcp_nopush on; server_tokens off;
         keepalive_requests 1000000; default_type application/octet-stream;
         client_body_temp_path ${dir}; proxy_temp_path ${dir};
         fastcgi_temp_path ${dir}; uwsgi_temp_path ${dir}; scgi_temp_path ${dir};
         server {
           ${listen} root ${root};
           location ~ /manifests/ {
             default_type ${MANIFEST_TYPE};
           }
         }
       }`,
    );
    return this.#start({
      command: "nginx",
      args: ["-c", file, "-p", dir],
      port,
    });
  }

  /** Starts Entrepot from `dist`; only its upstream, ports and folder are configured. */
  async startEntrepot(options: EntrepotOptions): Promise<Server> {
    const dir = await this.folder("entrepot");
    const port = await freePort();
    const file = join(dir, "entrepot.yaml");
    // JSON is YAML 1.2.
    await writeFile(
      file,
      JSON.stringify({
        listen: `127.0.0.1:${port}`,
        operator: { listen: `127.0.0.1:${await freePort()}` },
        storage: { root: options.root ?? join(dir, "data") },
        ...(options.origin === undefined
          ? {}
          : {
              upstreams: {
                "docker.io": { default: true, endpoints: [options.origin] },
              },
            }),
        ...options.config,
      }),
    );
    return this.#start({
      command: process.execPath,
      args: [...this.#profiler(), MAIN, "serve", "--config", file],
      port,
      env: { NODE_ENV: "production" },
    });
  }

  #profiler(): string[] {
    const { profile } = this.options;
    return profile === undefined
      ? []
      : [
          `--${profile.kind}-prof`,
          `--${profile.kind}-prof-dir=${profile.folder}`,
        ];
  }

  async #startRegistry(
    root: string,
    config: Readonly<Record<string, unknown>>,
  ): Promise<Server> {
    const dir = await this.folder("registry");
    const port = await freePort();
    const file = join(dir, "config.yml");
    await writeFile(
      file,
      JSON.stringify({
        version: "0.1",
        log: { level: "error", accesslog: { disabled: true } },
        storage: { filesystem: { rootdirectory: root } },
        http: { addr: `127.0.0.1:${port}` },
        ...config,
      }),
    );
    return this.#start({
      command: "docker-registry",
      args: ["serve", file],
      port,
      env: { OTEL_TRACES_EXPORTER: "none" },
    });
  }

  async #start(options: {
    command: string;
    args: string[];
    port: number;
    env?: Record<string, string>;
  }): Promise<Server> {
    this.#count += 1;
    const errorFile = join(this.dir, `errors-${this.#count}`);
    const server = await Server.start({ ...options, errorFile });
    this.#servers.push(server);
    this.onClose(() => server.stop());
    return server;
  }
}

/** Sends one request and reads the whole response, so that the server stores its content. */
export async function warm(server: Origin, path: string): Promise<void> {
  const response = await fetch(server.origin + path, {
    headers: { accept: `${MANIFEST_TYPE}, */*` },
  });
  if (!response.ok) {
    throw new Error(`${server.origin}${path}: ${response.status}`);
  }
  for await (const chunk of response.body ?? []) void chunk;
}
