import { readdir, readFile, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { PassThrough } from "node:stream";
import { stringify } from "yaml";
import { runCommandLine } from "../../src/cli/command-line.ts";
import type { AfterTest } from "./after-test.ts";
import { CollectedOutput } from "./collected-output.ts";
import { tempDir } from "./temp-dir.ts";

/** The result of one `entrepot client-config`. */
export interface ClientConfigRun {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A folder with a configuration, in which `client-config` runs. */
export class ClientConfigFolder {
  readonly path: string;
  /** The folder that stands for `/`. */
  readonly root: string;

  private constructor(path: string) {
    this.path = path;
    this.root = join(path, "root");
  }

  static async create(
    test: AfterTest,
    config: Readonly<Record<string, unknown>>,
  ): Promise<ClientConfigFolder> {
    const folder = new ClientConfigFolder(await tempDir(test, "clients-"));
    await folder.write("entrepot.yaml", stringify(config));
    return folder;
  }

  async write(name: string, text: string): Promise<void> {
    // A configuration that names secrets must not be readable by others.
    await writeFile(join(this.path, name), text, { mode: 0o600 });
  }

  async run(...args: readonly string[]): Promise<ClientConfigRun> {
    const stdout = new CollectedOutput();
    const stderr = new CollectedOutput();
    const code = await runCommandLine(
      ["client-config", "--config", "entrepot.yaml", ...args],
      { env: {}, cwd: this.path, stdin: new PassThrough(), stdout, stderr },
    );
    return { code, stdout: stdout.text, stderr: stderr.text };
  }

  /** Prints the files of an engine. @returns their texts by path. @throws Error if it fails */
  async files(
    ...args: readonly string[]
  ): Promise<Readonly<Record<string, string>>> {
    const { code, stdout, stderr } = await this.run(...args, "--json");
    if (code !== 0) throw new Error(stderr);
    const { files } = JSON.parse(stdout) as {
      files: { path: string; text: string }[];
    };
    return Object.fromEntries(files.map(({ path, text }) => [path, text]));
  }

  /** Runs `--install` below the root. */
  async install(...args: readonly string[]): Promise<ClientConfigRun> {
    return this.run(...args, "--install", "--root", this.root);
  }

  /** Returns the texts of the files below the root, by path. */
  async installed(): Promise<Readonly<Record<string, string>>> {
    const entries = await readdir(this.root, {
      recursive: true,
      withFileTypes: true,
    });
    const texts: Record<string, string> = {};
    for (const entry of entries.filter((one) => one.isFile())) {
      const file = join(entry.parentPath, entry.name);
      texts[`/${relative(this.root, file)}`] = await readFile(file, "utf8");
    }
    return texts;
  }
}
