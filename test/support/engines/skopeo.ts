import { createHash } from "node:crypto";
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import type { AfterTest } from "../after-test.ts";
import { tempDir } from "../temp-dir.ts";
import type { MirrorAddress } from "./engine.ts";
import { INSTALLED, type Programs, runProgram } from "./programs.ts";
import { writeRegistriesConf } from "./registries-conf.ts";

/** A file of a `dir:` copy: its name and the digest of its bytes. */
export interface CopiedFile {
  readonly name: string;
  readonly digest: string;
}

/** skopeo with `--registries-conf`: copies images with all platforms and runs no containers. */
export class Skopeo {
  readonly #dir: string;
  readonly #registriesConf: string;
  readonly #programs: Programs;
  #copyCount = 0;

  private constructor(dir: string, registriesConf: string, programs: Programs) {
    this.#dir = dir;
    this.#registriesConf = registriesConf;
    this.#programs = programs;
  }

  static async start(
    test: AfterTest,
    mirror: MirrorAddress,
    programs = INSTALLED,
  ): Promise<Skopeo> {
    const dir = await tempDir(test, "skopeo-");
    return new Skopeo(dir, await writeRegistriesConf(dir, mirror), programs);
  }

  /**
   * Copies an image, including all platforms of an index, into an empty folder.
   *
   * @returns digest of the top manifest, and the digest of each file's bytes
   */
  async copyAll(
    reference: string,
  ): Promise<{ readonly digest: string; readonly files: CopiedFile[] }> {
    this.#copyCount += 1;
    const to = join(this.#dir, `copy-${this.#copyCount}`);
    await this.skopeo(
      "copy",
      "--all",
      "--preserve-digests",
      `docker://${reference}`,
      `dir:${to}`,
    );
    const files: CopiedFile[] = [];
    for (const name of await readdir(to)) {
      const bytes = await readFile(join(to, name));
      const hex = createHash("sha256").update(bytes).digest("hex");
      files.push({ name, digest: `sha256:${hex}` });
    }
    await rm(to, { recursive: true });
    const top = files.find((file) => file.name === "manifest.json");
    return { digest: top?.digest ?? "", files };
  }

  async skopeo(...args: readonly string[]): Promise<string> {
    const { stdout } = await runProgram(this.#programs, "skopeo", [
      `--registries-conf=${this.#registriesConf}`,
      ...args,
    ]);
    return stdout;
  }
}
