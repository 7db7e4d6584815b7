import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type AfterTest, releaseAfter } from "../after-test.ts";
import { Child } from "../child-process.ts";
import { tempDir } from "../temp-dir.ts";
import { readClientFile } from "./client-files.ts";
import type { Engine, MirrorAddress } from "./engine.ts";
import {
  commandLine,
  INSTALLED,
  type Programs,
  runProgram,
} from "./programs.ts";

/** The CRI plug-in requires a network that a test does not have. */
const CONFIG = `version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
`;

/**
 * Docker Hub's server has another name than the registry; the default covers all others; the last one
 * is for the mirror's own name.
 */
const HOSTS_FOLDERS = ["docker.io", "_default", "mirror.internal_5000_"];

/** `ctr` processes that pull concurrently. */
const PULLS_AT_ONCE = 4;

/** containerd with `hosts.toml`, driven by `ctr`: it sends the registry to the mirror as `?ns=`. */
export class Containerd implements Engine {
  readonly #test: AfterTest;
  readonly #dir: string;
  readonly #programs: Programs;
  readonly #hostsDir: string;
  #child: Child | undefined;
  #storeCount = 0;
  #runCount = 0;

  private constructor(
    test: AfterTest,
    dir: string,
    programs: Programs,
    hostsDir: string,
  ) {
    this.#test = test;
    this.#dir = dir;
    this.#programs = programs;
    this.#hostsDir = hostsDir;
  }

  /** Starts it with a folder of hosts.toml files that is installed. */
  static async startInstalled(
    test: AfterTest,
    hostsDir: string,
    programs: Programs,
  ): Promise<Containerd> {
    const dir = await tempDir(test, "containerd-");
    await writeFile(join(dir, "config.toml"), CONFIG);
    const engine = new Containerd(test, dir, programs, hostsDir);
    await engine.#start();
    return engine;
  }

  static async start(
    test: AfterTest,
    mirror: MirrorAddress,
    programs = INSTALLED,
  ): Promise<Containerd> {
    const dir = await tempDir(test, "containerd-");
    const own = `${mirror.host.replace(":", "_")}_`;
    for (const name of HOSTS_FOLDERS) {
      const folder = name.startsWith("mirror.internal") ? own : name;
      const file = join(dir, "hosts", folder, "hosts.toml");
      await mkdir(dirname(file), { recursive: true });
      await writeFile(
        file,
        (await readClientFile(
          `containerd/certs.d/${name}/hosts.toml`,
          mirror,
        )) + (mirror.hostsToml ?? ""),
      );
    }
    await writeFile(join(dir, "config.toml"), CONFIG);
    const engine = new Containerd(test, dir, programs, join(dir, "hosts"));
    await engine.#start();
    return engine;
  }

  async pull(reference: string): Promise<readonly string[]> {
    await this.ctr("images", "pull", "--hosts-dir", this.#hostsDir, reference);
    const list = await this.ctr("images", "ls", `name==${reference}`);
    return list.match(/sha256:[a-f0-9]{64}/g) ?? [];
  }

  /**
   * Pulls many images, a few concurrently.
   *
   * @returns the digest under which containerd then lists each of its images
   */
  async pullAll(
    references: readonly string[],
  ): Promise<ReadonlyMap<string, string>> {
    const waiting = [...references];
    const pullNext = async (): Promise<void> => {
      for (;;) {
        const reference = waiting.shift();
        if (reference === undefined) return;
        await this.#pull(reference);
      }
    };
    await Promise.all(Array.from({ length: PULLS_AT_ONCE }, pullNext));
    const list = await this.ctr("images", "ls");
    const digests = new Map<string, string>();
    for (const [, name = "", digest = ""] of list.matchAll(
      /^(\S+)\s.*\s(sha256:[a-f0-9]{64})\s/gm,
    )) {
      digests.set(name, digest);
    }
    return digests;
  }

  async #pull(reference: string): Promise<void> {
    const hosts = join(this.#dir, "hosts");
    await this.ctr("images", "pull", "--hosts-dir", hosts, reference);
  }

  /** Pushes an image that was pulled or imported under this name. */
  async push(reference: string): Promise<void> {
    await this.ctr("images", "push", "--hosts-dir", this.#hostsDir, reference);
  }

  async run(reference: string, command: readonly string[]): Promise<string> {
    this.#runCount += 1;
    return this.ctr(
      "run",
      "--rm",
      reference,
      `run-${process.pid}-${this.#runCount}`,
      ...command,
    );
  }

  async empty(): Promise<void> {
    await this.#stop();
    await this.#start();
  }

  /**
   * Hashes every blob and manifest in the content store.
   *
   * @returns for each, the digest under which containerd keeps it and the digest of its bytes
   */
  async contents(): Promise<
    readonly { readonly name: string; readonly digest: string }[]
  > {
    const folder = join(
      this.#store,
      "root/io.containerd.content.v1.content/blobs/sha256",
    );
    const contents = [];
    for (const name of await readdir(folder)) {
      const bytes = await readFile(join(folder, name));
      const hex = createHash("sha256").update(bytes).digest("hex");
      contents.push({ name: `sha256:${name}`, digest: `sha256:${hex}` });
    }
    return contents;
  }

  async ctr(...args: readonly string[]): Promise<string> {
    const address = join(this.#store, "ctd.sock");
    const { stdout } = await runProgram(this.#programs, "ctr", [
      "--address",
      address,
      ...args,
    ]);
    return stdout;
  }

  /** The daemon's log. */
  get log(): string {
    return this.#child?.output() ?? "";
  }

  get #store(): string {
    return join(this.#dir, `store-${this.#storeCount}`);
  }

  async #start(): Promise<void> {
    this.#storeCount += 1;
    await mkdir(this.#store);
    const [command, args] = commandLine(this.#programs, "containerd", [
      `--config=${join(this.#dir, "config.toml")}`,
      `--root=${join(this.#store, "root")}`,
      `--state=${join(this.#store, "state")}`,
      `--address=${join(this.#store, "ctd.sock")}`,
    ]);
    this.#child = new Child(this.#test, { command, args });
    releaseAfter(this.#test, () => this.#stop());
    await this.#child.line(
      (line) => line.includes("containerd successfully booted") || undefined,
    );
  }

  async #stop(): Promise<void> {
    if (this.#child?.isRunning === true) await this.#child.terminate(20_000);
  }
}
