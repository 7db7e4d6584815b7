import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type AfterTest, releaseAfter } from "../after-test.ts";
import { Child } from "../child-process.ts";
import { runCommand } from "../run-command.ts";
import { tempDir } from "../temp-dir.ts";
import { readClientFile } from "./client-files.ts";
import type { Engine, MirrorAddress } from "./engine.ts";
import {
  commandLine,
  INSTALLED,
  type Programs,
  runProgram,
} from "./programs.ts";

const START_TIMEOUT_MS = 30_000;
/** Long enough to push and to pull a base image. */
const COMMAND_TIMEOUT_MS = 180_000;
/** Long enough for a build that installs packages. */
const BUILD_TIMEOUT_MS = 600_000;

export interface DockerdOptions {
  /** Default: those of the machine. */
  readonly programs?: Programs;
  /** Whether images are kept in the containerd image store, the default since Docker 29. */
  readonly hasContainerdStore?: boolean;
  /** Of a set-up that is installed; default: a file of deploy/clients. */
  readonly configFile?: string;
}

/** dockerd with `registry-mirrors`, the configuration that most users have. */
export class Dockerd implements Engine {
  readonly #test: AfterTest;
  readonly #dir: string;
  readonly #mirror: MirrorAddress | undefined;
  readonly #programs: Programs;
  readonly #hasContainerdStore: boolean;
  readonly #installedFile: string | undefined;
  #child: Child | undefined;
  #storeCount = 0;

  private constructor(
    test: AfterTest,
    dir: string,
    mirror: MirrorAddress | undefined,
    options: DockerdOptions,
  ) {
    this.#test = test;
    this.#dir = dir;
    this.#mirror = mirror;
    this.#programs = options.programs ?? INSTALLED;
    this.#hasContainerdStore = options.hasContainerdStore ?? false;
    this.#installedFile = options.configFile;
  }

  /** @param mirror if absent, the daemon only builds and pushes */
  static async start(
    test: AfterTest,
    mirror?: MirrorAddress,
    options: DockerdOptions = {},
  ): Promise<Dockerd> {
    const dir = await tempDir(test, "dockerd-");
    const engine = new Dockerd(test, dir, mirror, options);
    await engine.#start();
    return engine;
  }

  /** Writes the configuration of the client, as `docker login` does. */
  async writeClientConfig(
    config: Readonly<Record<string, unknown>>,
  ): Promise<void> {
    const folder = join(this.#dir, "client");
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, "config.json"), JSON.stringify(config));
  }

  /** Runs the client and returns its standard output. */
  async docker(...args: readonly string[]): Promise<string> {
    const { stdout } = await runProgram(this.#programs, "docker", args, {
      env: this.#clientEnv,
      timeoutMs: COMMAND_TIMEOUT_MS,
    });
    return stdout;
  }

  /**
   * Builds with the daemon's own builder; BuildKit would fetch a front end from Docker Hub.
   *
   * @param folder the context, including the Dockerfile
   * @param buildArgs override the defaults of the Dockerfile
   * @returns the output of the build
   */
  async build(
    folder: string,
    tag: string,
    buildArgs: Readonly<Record<string, string>> = {},
  ): Promise<string> {
    const { stdout } = await runCommand(
      "docker",
      [
        "build",
        "--network=host",
        "--tag",
        tag,
        ...Object.entries(buildArgs).map(
          ([name, value]) => `--build-arg=${name}=${value}`,
        ),
        folder,
      ],
      {
        env: { ...this.#clientEnv, DOCKER_BUILDKIT: "0" },
        timeoutMs: BUILD_TIMEOUT_MS,
      },
    );
    return stdout;
  }

  async pull(reference: string): Promise<readonly string[]> {
    await this.docker("pull", "--quiet", reference);
    const format = '{{join .RepoDigests "\\n"}}';
    const known = await this.docker("inspect", "--format", format, reference);
    return known
      .trim()
      .split("\n")
      .map((name) => name.slice(name.indexOf("@") + 1));
  }

  async run(reference: string, command: readonly string[]): Promise<string> {
    return this.docker("run", "--rm", "--network=none", reference, ...command);
  }

  async empty(): Promise<void> {
    await this.#stop();
    await this.#start();
  }

  get #clientEnv(): Record<string, string> {
    return {
      DOCKER_HOST: this.#address,
      DOCKER_CONFIG: join(this.#dir, "client"),
    };
  }

  get #store(): string {
    return join(this.#dir, `store-${this.#storeCount}`);
  }

  get #address(): string {
    return `unix://${join(this.#dir, "docker.sock")}`;
  }

  async #start(): Promise<void> {
    this.#storeCount += 1;
    const store = this.#store;
    await mkdir(store);
    const configFile = this.#installedFile ?? join(store, "daemon.json");
    if (this.#installedFile === undefined) {
      await writeFile(configFile, await this.#configuration());
    }
    const [command, args] = commandLine(this.#programs, "dockerd", [
      `--host=${this.#address}`,
      `--data-root=${join(store, "data")}`,
      `--exec-root=${join(store, "exec")}`,
      `--pidfile=${join(store, "pid")}`,
      "--iptables=false",
      "--ip6tables=false",
      "--bridge=none",
      `--storage-driver=${this.#hasContainerdStore ? "overlayfs" : "overlay2"}`,
      `--config-file=${configFile}`,
    ]);
    const child = new Child(this.#test, { command, args });
    this.#child = child;
    // The release of `Child` is SIGKILL, which would leave the daemon's containerd and its mounts.
    releaseAfter(this.#test, () => this.#stop());
    await child.line(
      (line) => line.includes("API listen on") || undefined,
      START_TIMEOUT_MS,
    );
    await this.#answers(child);
  }

  async #configuration(): Promise<string> {
    const text =
      this.#mirror === undefined
        ? "{}"
        : await readClientFile("docker/daemon.json", this.#mirror);
    if (!this.#hasContainerdStore) return text;
    const features = { "containerd-snapshotter": true };
    return JSON.stringify({ ...(JSON.parse(text) as object), features });
  }

  async #answers(child: Child): Promise<void> {
    const endMs = performance.now() + START_TIMEOUT_MS;
    for (;;) {
      try {
        await this.docker("version");
        return;
      } catch (error) {
        if (performance.now() > endMs || !child.isRunning) {
          throw new Error(`dockerd does not answer:\n${child.output()}`, {
            cause: error,
          });
        }
        await delay(100);
      }
    }
  }

  async #stop(): Promise<void> {
    if (this.#child?.isRunning !== true) return;
    await this.#child.terminate(20_000);
    // The daemon leaves this mount if a container used the machine's network.
    const netns = join(this.#store, "exec/netns/default");
    if (existsSync(netns)) await runCommand("umount", [netns]);
  }
}
