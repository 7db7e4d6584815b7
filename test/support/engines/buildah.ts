import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { AfterTest } from "../after-test.ts";
import { tempDir } from "../temp-dir.ts";
import type { Engine, MirrorAddress } from "./engine.ts";
import { INSTALLED, type Programs, runProgram } from "./programs.ts";
import { writeRegistriesConf } from "./registries-conf.ts";

/** buildah with `registries.conf`; pulls as the `FROM` of a build does. */
export class Buildah implements Engine {
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

  /** @param mirror if absent, buildah only builds and pushes */
  static async start(
    test: AfterTest,
    mirror?: MirrorAddress,
    programs = INSTALLED,
  ): Promise<Buildah> {
    const dir = await tempDir(test, "buildah-");
    const conf = mirror && (await writeRegistriesConf(dir, mirror));
    return new Buildah(dir, conf, programs);
  }

  async pull(reference: string): Promise<readonly string[]> {
    await this.buildah("pull", "--quiet", reference);
    const known = await this.buildah(
      "images",
      "--json",
      "--no-trunc",
      reference,
    );
    const repository = reference.replace(/:[^:/]*$/, "");
    const { FromImageDigest } = JSON.parse(
      await this.buildah("inspect", "--type=image", reference),
    ) as { FromImageDigest: string };
    const images = JSON.parse(known) as { digest?: string }[];
    if (images.length !== 1) throw new Error(`${repository}: ${known}`);
    return [FromImageDigest, images[0]?.digest ?? ""];
  }

  async run(reference: string, command: readonly string[]): Promise<string> {
    const container = (
      await this.buildah("from", "--pull-never", reference)
    ).trim();
    try {
      return await this.buildah(
        "run",
        "--isolation=chroot",
        container,
        ...command,
      );
    } finally {
      await this.buildah("rm", container);
    }
  }

  async empty(): Promise<void> {
    for (const folder of ["root", "run"]) {
      await rm(join(this.#dir, folder), { recursive: true, force: true });
    }
  }

  async buildah(...args: readonly string[]): Promise<string> {
    const { stdout } = await runProgram(
      this.#programs,
      "buildah",
      [
        "--storage-driver=vfs",
        `--root=${join(this.#dir, "root")}`,
        `--runroot=${join(this.#dir, "run")}`,
        ...args,
      ],
      {
        env: {
          XDG_RUNTIME_DIR: this.#dir,
          ...(this.#registriesConf === undefined
            ? {}
            : { CONTAINERS_REGISTRIES_CONF: this.#registriesConf }),
        },
      },
    );
    return stdout;
  }
}
