import { chmod, writeFile } from "node:fs/promises";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type AfterTest, releaseAfter } from "../after-test.ts";
import { tempDir } from "../temp-dir.ts";
import type { Dockerd } from "./dockerd.ts";

const HEALTHY_WITHIN_MS = 60_000;
/** As in `deploy/compose`; after it, SIGKILL ends the process with an exit code other than 0. */
const GRACE_SECONDS = 40;
/** Options that `deploy/compose` uses. */
const HARDENING = [
  "--read-only",
  "--tmpfs=/tmp",
  "--cap-drop=ALL",
  "--security-opt=no-new-privileges",
  "--pids-limit=256",
  "--memory=512m",
];

interface ContainerState {
  readonly State: {
    readonly Status: string;
    readonly Pid: number;
    readonly ExitCode: number;
    readonly Health: { readonly Status: string };
  };
  readonly Mounts: readonly {
    readonly Source: string;
    readonly Destination: string;
  }[];
}

/** The mirror's image in a container that shares the machine's network. */
export class MirrorContainer {
  /** `127.0.0.1:PORT` of the registry API. */
  readonly host: string;
  readonly #dockerd: Dockerd;
  readonly #id: string;

  private constructor(dockerd: Dockerd, id: string, host: string) {
    this.#dockerd = dockerd;
    this.#id = id;
    this.host = host;
  }

  /**
   * Starts a container and waits until the image's own health check passes.
   *
   * @param config content of the file in `/etc/entrepot`; the environment sets the addresses
   */
  static async run(
    test: AfterTest,
    dockerd: Dockerd,
    image: string,
    config: Readonly<Record<string, unknown>>,
  ): Promise<MirrorContainer> {
    const dir = await tempDir(test, "mirror-container-");
    const file = join(dir, "entrepot.yaml");
    // JSON is YAML 1.2.
    await writeFile(file, JSON.stringify(config));
    await chmod(file, 0o644);
    const [registry = 0, operator = 0] = await freePorts(2);
    const id = await dockerd.docker(
      "run",
      "--detach",
      "--network=host",
      ...HARDENING,
      `--volume=${file}:/etc/entrepot/entrepot.yaml:ro`,
      `--env=ENTREPOT_LISTEN=127.0.0.1:${registry}`,
      `--env=ENTREPOT_OPERATOR__LISTEN=127.0.0.1:${operator}`,
      // With the image's own interval the test would wait for half a minute.
      "--health-interval=1s",
      image,
    );
    const container = new MirrorContainer(
      dockerd,
      id.trim(),
      `127.0.0.1:${registry}`,
    );
    releaseAfter(test, () =>
      dockerd.docker("rm", "--force", "--volumes", container.#id),
    );
    await container.#healthy();
    return container;
  }

  async start(): Promise<void> {
    await this.#dockerd.docker("start", this.#id);
    await this.#healthy();
  }

  /** Sends SIGTERM, and SIGKILL after the grace period. @returns the exit code */
  async stop(): Promise<number> {
    await this.#dockerd.docker("stop", `--time=${GRACE_SECONDS}`, this.#id);
    return (await this.#inspect()).State.ExitCode;
  }

  /** Returns the real, effective, saved and file system user of the process. */
  async uids(): Promise<readonly number[]> {
    const { Pid } = (await this.#inspect()).State;
    const status = readFileSync(`/proc/${Pid}/status`, "utf8");
    const [, uids = ""] = /^Uid:\t(.+)$/m.exec(status) ?? [];
    return uids.split("\t").map(Number);
  }

  /** Returns the capability sets of the process, as the kernel's bit masks in hex. */
  async capabilities(): Promise<readonly string[]> {
    const { Pid } = (await this.#inspect()).State;
    const status = readFileSync(`/proc/${Pid}/status`, "utf8");
    return [...status.matchAll(/^Cap(?:Eff|Prm|Bnd|Amb):\t(\w+)$/gm)].map(
      ([, bits = ""]) => bits,
    );
  }

  /** Writes to a path with a shell in the container. @returns the output, or the error if it fails */
  async write(path: string): Promise<string> {
    return this.#dockerd
      .docker("exec", this.#id, "sh", "-c", `echo x > ${path}`)
      .catch(String);
  }

  /** Runs `entrepot` with the arguments in the container. @returns its output */
  async entrepot(...args: readonly string[]): Promise<string> {
    return this.#dockerd.docker("exec", this.#id, "entrepot", ...args);
  }

  /** Returns the machine's folder that is mounted at a path of the container. */
  async mountedAt(path: string): Promise<string> {
    const { Mounts } = await this.#inspect();
    const mount = Mounts.find(({ Destination }) => Destination === path);
    if (mount === undefined) throw new Error(`nothing is mounted at ${path}`);
    return mount.Source;
  }

  /** Lists the paths that were changed outside of every mount. */
  async changedPaths(): Promise<string> {
    return this.#dockerd.docker("diff", this.#id);
  }

  async logs(): Promise<string> {
    return this.#dockerd.docker("logs", this.#id);
  }

  async #healthy(): Promise<void> {
    const endMs = performance.now() + HEALTHY_WITHIN_MS;
    for (;;) {
      const { Status, Health } = (await this.#inspect()).State;
      if (Health.Status === "healthy") return;
      if (Status !== "running" || performance.now() > endMs) {
        const said = await this.logs();
        throw new Error(`${Status}, ${Health.Status}:\n${said}`);
      }
      await delay(250);
    }
  }

  async #inspect(): Promise<ContainerState> {
    const text = await this.#dockerd.docker("inspect", this.#id);
    const [state] = JSON.parse(text) as ContainerState[];
    if (state === undefined) throw new Error(text);
    return state;
  }
}

/** Chooses ports in advance: the health check reads its port from the environment, which can't be 0. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () =>
    createServer().listen(0, "127.0.0.1"),
  );
  await Promise.all(servers.map((server) => once(server, "listening")));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(
    servers.map(async (server) => {
      server.close();
      await once(server, "close");
    }),
  );
  return ports;
}
