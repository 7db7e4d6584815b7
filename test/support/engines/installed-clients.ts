import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { AfterTest } from "../after-test.ts";
import { ClientConfigFolder, type ClientConfigRun } from "../client-config.ts";
import { runCommand } from "../run-command.ts";
import type { Programs } from "./programs.ts";

/**
 * A copy of the machine's `/etc`, into which `client-config --install` writes. Engines see it in place
 * of the machine's, so that they read each file at the path that the command chose.
 */
export class InstalledClients {
  readonly #folder: ClientConfigFolder;

  private constructor(folder: ClientConfigFolder) {
    this.#folder = folder;
  }

  static async create(
    test: AfterTest,
    config: Readonly<Record<string, unknown>>,
  ): Promise<InstalledClients> {
    const folder = await ClientConfigFolder.create(test, config);
    await mkdir(folder.root);
    await runCommand("cp", ["-a", "/etc", folder.root]);
    return new InstalledClients(folder);
  }

  /** @throws Error if the command fails */
  async install(...args: readonly string[]): Promise<ClientConfigRun> {
    const run = await this.#folder.install(...args);
    if (run.code !== 0) throw new Error(run.stderr);
    return run;
  }

  /** Writes a file of another author. */
  async write(path: string, text: string): Promise<void> {
    const file = join(this.#folder.root, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, text);
  }

  /** Returns the programs in a mount namespace in which `/etc` is the copy. */
  programs({ name, prefix }: Programs): Programs {
    return {
      name,
      prefix: [
        "unshare",
        "--mount",
        "--propagation=private",
        "sh",
        "-c",
        'mount --bind "$0" /etc && exec "$@"',
        join(this.#folder.root, "etc"),
        ...prefix,
      ],
    };
  }
}
