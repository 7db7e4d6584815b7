import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { AfterTest } from "../after-test.ts";
import { tempDir } from "../temp-dir.ts";
import type { Engine, MirrorAddress } from "./engine.ts";
import { INSTALLED, type Programs, runProgram } from "./programs.ts";
import { writeRegistriesConf } from "./registries-conf.ts";

/** podman with `registries.conf`; it needs no daemon. */
export class Podman implements Engine {
  readonly #dir: string;
  readonly #registriesConf: string | undefined;
  readonly #programs: Programs;

  private constructor(
    dir: string,
    registriesConf: string | undefined,
    programs: Programs,
  ) {
    this.#dir = dir;
    this.#registriesConf = registriesConf;
    this.#programs = programs;
  }

  /** @param mirror if absent, podman reads the files of the system */
  static async start(
    test: AfterTest,
    mirror: MirrorAddress | undefined,
    programs = INSTALLED,
  ): Promise<Podman> {
    const dir = await tempDir(test, "podman-");
    const file = mirror && (await writeRegistriesConf(dir, mirror));
    return new Podman(dir, file, programs);
  }

  async pull(reference: string): Promise<readonly string[]> {
    await this.podman("pull", "--quiet", reference);
    const format = '{{join .RepoDigests "\\n"}}';
    const known = await this.podman(
      "image",
      "inspect",
      "--format",
      format,
      reference,
    );
    return known.match(/sha256:[a-f0-9]{64}/g) ?? [];
  }

  async run(reference: string, command: readonly string[]): Promise<string> {
    return this.podman(
      "run",
      "--rm",
      "--network=none",
      // podman's default limits may exceed those of the test's process.
      "--ulimit=nofile=1024:1024",
      "--ulimit=nproc=1024:1024",
      reference,
      ...command,
    );
  }

  async empty(): Promise<void> {
    for (const folder of ["root", "run", "tmp"]) {
      // Processes that podman left running may still remove their files: retry.
      await rm(join(this.#dir, folder), {
        recursive: true,
        force: true,
        maxRetries: 20,
        retryDelay: 50,
      });
    }
  }

  async podman(...args: readonly string[]): Promise<string> {
    const runtimeDir = join(this.#dir, "runtime");
    await mkdir(runtimeDir, { recursive: true });
    const { stdout } = await runProgram(
      this.#programs,
      "podman",
      [
        "--storage-driver=vfs",
        `--root=${join(this.#dir, "root")}`,
        `--runroot=${join(this.#dir, "run")}`,
        `--tmpdir=${join(this.#dir, "tmp")}`,
        "--cgroup-manager=cgroupfs",
        "--events-backend=none",
        "--runtime=runc",
        ...args,
      ],
      {
        env: {
          XDG_RUNTIME_DIR: runtimeDir,
          ...(this.#registriesConf === undefined
            ? {}
            : { CONTAINERS_REGISTRIES_CONF: this.#registriesConf }),
        },
      },
    );
    return stdout;
  }
}
