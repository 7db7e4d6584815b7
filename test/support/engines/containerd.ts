import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type AfterTest, releaseAfter } from "../after-test.ts";
import { Child } from "../child-process.ts";
import { runCommand } from "../run-command.ts";
import { tempDir } from "../temp-dir.ts";
import { readClientFile } from "./client-files.ts";
import type { Engine, MirrorAddress } from "./engine.ts";

/** The CRI plug-in requires a network that a test does not have. */
const CONFIG = `version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
`;

/** Docker Hub's server has another name than the registry; the default covers all others. */
const HOSTS_FILES = ["docker.io/hosts.toml", "_default/hosts.toml"];

/** containerd with `hosts.toml`, driven by `ctr`: it sends the registry to the mirror as `?ns=`. */
export class Containerd implements Engine {
  readonly #test: AfterTest;
  readonly #dir: string;
  #child: Child | undefined;
  #storeCount = 0;
  #runCount = 0;

  private constructor(test: AfterTest, dir: string) {
    this.#test = test;
    this.#dir = dir;
  }

  static async start(
    test: AfterTest,
    mirror: MirrorAddress,
  ): Promise<Containerd> {
    const dir = await tempDir(test, "containerd-");
    for (const name of HOSTS_FILES) {
      const file = join(dir, "hosts", name);
      await mkdir(dirname(file), { recursive: true });
      await writeFile(
        file,
        (await readClientFile(`containerd/certs.d/${name}`, mirror)) +
          (mirror.hostsToml ?? ""),
      );
    }
    await writeFile(join(dir, "config.toml"), CONFIG);
    const engine = new Containerd(test, dir);
    await engine.#start();
    return engine;
  }

  async pull(reference: string): Promise<readonly string[]> {
    await this.ctr(
      "images",
      "pull",
      "--hosts-dir",
      join(this.#dir, "hosts"),
      reference,
    );
    const list = await this.ctr("images", "ls", `name==${reference}`);
    return list.match(/sha256:[a-f0-9]{64}/g) ?? [];
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
    const { stdout } = await runCommand("ctr", ["--address", address, ...args]);
    return stdout;
  }

  get #store(): string {
    return join(this.#dir, `store-${this.#storeCount}`);
  }

  async #start(): Promise<void> {
    this.#storeCount += 1;
    await mkdir(this.#store);
    this.#child = new Child(this.#test, {
      command: "containerd",
      args: [
        `--config=${join(this.#dir, "config.toml")}`,
        `--root=${join(this.#store, "root")}`,
        `--state=${join(this.#store, "state")}`,
        `--address=${join(this.#store, "ctd.sock")}`,
      ],
    });
    releaseAfter(this.#test, () => this.#stop());
    await this.#child.line(
      (line) => line.includes("containerd successfully booted") || undefined,
    );
  }

  async #stop(): Promise<void> {
    if (this.#child?.isRunning === true) await this.#child.terminate(20_000);
  }
}
