import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type AfterTest, releaseAfter } from "../after-test.ts";
import { runCommand } from "../run-command.ts";
import { tempDir } from "../temp-dir.ts";
import type { MirrorAddress } from "./engine.ts";
import { writeRegistriesConf } from "./registries-conf.ts";

/** podman that fetches only the missing parts of zstd:chunked layers; requires overlay storage. */
export class PartialPodman {
  readonly #dir: string;
  readonly #env: Readonly<Record<string, string>>;

  private constructor(dir: string, env: Readonly<Record<string, string>>) {
    this.#dir = dir;
    this.#env = env;
  }

  static async start(
    test: AfterTest,
    mirror: MirrorAddress,
  ): Promise<PartialPodman> {
    const dir = await tempDir(test, "partial-podman-");
    const storageConf = join(dir, "storage.conf");
    await writeFile(
      storageConf,
      `[storage]
driver = "overlay"
graphroot = "${join(dir, "root")}"
runroot = "${join(dir, "run")}"
[storage.options]
pull_options = {enable_partial_images = "true", use_hard_links = "false", ostree_repos = ""}
`,
    );
    const runtimeDir = join(dir, "runtime");
    await mkdir(runtimeDir);
    const podman = new PartialPodman(dir, {
      CONTAINERS_STORAGE_CONF: storageConf,
      CONTAINERS_REGISTRIES_CONF: await writeRegistriesConf(dir, mirror),
      XDG_RUNTIME_DIR: runtimeDir,
    });
    releaseAfter(test, () => podman.empty());
    return podman;
  }

  async pull(reference: string): Promise<void> {
    await this.#podman("pull", "--quiet", reference);
  }

  /** Mounts an image, calls the reader with the folder, and unmounts the image. */
  async mounted(
    reference: string,
    read: (folder: string) => Promise<void>,
  ): Promise<void> {
    const folder = await this.#podman("image", "mount", reference);
    try {
      await read(folder.trim());
    } finally {
      await this.#podman("image", "umount", reference);
    }
  }

  /** Removes everything that was pulled, and the mount. */
  async empty(): Promise<void> {
    await this.#podman("rmi", "--all", "--force");
    await runCommand("sh", [
      "-c",
      'umount "$1" 2>/dev/null || true',
      "sh",
      join(this.#dir, "root/overlay"),
    ]);
  }

  async #podman(...args: readonly string[]): Promise<string> {
    const { stdout } = await runCommand(
      "podman",
      [
        `--tmpdir=${join(this.#dir, "tmp")}`,
        "--cgroup-manager=cgroupfs",
        "--events-backend=none",
        ...args,
      ],
      { env: this.#env },
    );
    return stdout;
  }
}
