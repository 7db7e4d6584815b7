import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { AfterTest } from "../after-test.ts";
import { tempDir } from "../temp-dir.ts";
import type { HostedRegistry } from "./hosted-registry.ts";
import type { NewerClients } from "./newer-clients.ts";
import { runProgram } from "./programs.ts";

/** A user's folder and environment for the clients that need no daemon. */
export class ClientFolder {
  readonly dir: string;
  readonly #clients: NewerClients;
  readonly #env: Readonly<Record<string, string>>;

  private constructor(
    dir: string,
    clients: NewerClients,
    env: Readonly<Record<string, string>>,
  ) {
    this.dir = dir;
    this.#clients = clients;
    this.#env = env;
  }

  /** The clients trust the certificate of a guarded registry, and have no log-in. */
  static async create(
    test: AfterTest,
    clients: NewerClients,
    { guard }: HostedRegistry,
  ): Promise<ClientFolder> {
    const dir = await tempDir(test, "client-");
    await mkdir(join(dir, "home"));
    return new ClientFolder(dir, clients, {
      HOME: join(dir, "home"),
      DOCKER_CONFIG: join(dir, "home/.docker"),
      COSIGN_PASSWORD: "",
      ...(guard === undefined ? {} : { SSL_CERT_FILE: guard.certificateFile }),
    });
  }

  /** Runs a program in the folder and returns its standard output. */
  async run(program: string, ...args: readonly string[]): Promise<string> {
    const { helm, regctl } = this.#clients;
    const path = { helm, regctl }[program] ?? program;
    const options = { cwd: this.dir, env: this.#env };
    const { stdout } = await runProgram(this.#clients, path, args, options);
    return stdout;
  }

  async write(name: string, text: string): Promise<void> {
    await writeFile(join(this.dir, name), text);
  }

  async read(name: string): Promise<string> {
    return readFile(join(this.dir, name), "utf8");
  }
}
