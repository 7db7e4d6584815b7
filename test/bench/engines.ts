import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { runCommand } from "../support/run-command.ts";

/** An engine that pulls from the registry that a reference names, over plain HTTP. */
export interface PullingEngine {
  pull(reference: string): Promise<void>;
  /** Removes everything that was pulled. */
  empty(): Promise<void>;
}

const START_TIMEOUT_MS = 20_000;

/** podman with its own store, on overlay as by default if the kernel supports it. */
export class PullingPodman implements PullingEngine {
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
  }

  async pull(reference: string): Promise<void> {
    await this.#podman("pull", "--quiet", "--tls-verify=false", reference);
  }

  async empty(): Promise<void> {
    await this.#podman("rmi", "--all", "--force");
  }

  async #podman(...args: readonly string[]): Promise<void> {
    await runCommand(
      "podman",
      [
        "--storage-driver=overlay",
        `--root=${join(this.#dir, "root")}`,
        `--runroot=${join(this.#dir, "run")}`,
        `--tmpdir=${join(this.#dir, "tmp")}`,
        "--cgroup-manager=cgroupfs",
        "--events-backend=none",
        ...args,
      ],
      { env: { XDG_RUNTIME_DIR: this.#dir } },
    );
  }
}

/** containerd with its own store, controlled by `ctr`. */
export class PullingContainerd implements PullingEngine {
  readonly #dir: string;
  #storeCount = 0;
  #process: ChildProcess | undefined;

  constructor(dir: string) {
    this.#dir = dir;
  }

  async pull(reference: string): Promise<void> {
    await this.#ctr("images", "pull", "--plain-http", reference);
  }

  async empty(): Promise<void> {
    await this.stop();
    await this.#start();
  }

  async stop(): Promise<void> {
    const running = this.#process;
    this.#process = undefined;
    if (running !== undefined) {
      const exit = once(running, "exit");
      running.kill("SIGTERM");
      await exit;
    }
    await rm(this.#store, { recursive: true, force: true });
  }

  get #store(): string {
    return join(this.#dir, `store-${this.#storeCount}`);
  }

  async #ctr(...args: readonly string[]): Promise<void> {
    await runCommand("ctr", [
      `--address=${join(this.#store, "ctd.sock")}`,
      ...args,
    ]);
  }

  async #start(): Promise<void> {
    this.#storeCount += 1;
    await mkdir(this.#store, { recursive: true });
    const config = join(this.#store, "config.toml");
    await writeFile(
      config,
      'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n',
    );
    this.#process = spawn(
      "containerd",
      [
        `--config=${config}`,
        `--root=${join(this.#store, "root")}`,
        `--state=${join(this.#store, "state")}`,
        `--address=${join(this.#store, "ctd.sock")}`,
      ],
      { stdio: "ignore" },
    );
    const endMs = performance.now() + START_TIMEOUT_MS;
    for (;;) {
      try {
        await this.#ctr("version");
        return;
      } catch (error) {
        if (performance.now() > endMs) throw error;
        await delay(50);
      }
    }
  }
}
