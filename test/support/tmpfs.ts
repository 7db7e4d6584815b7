import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type AfterTest, releaseAfter } from "./after-test.ts";
import { runCommand } from "./run-command.ts";
import { tempDir } from "./temp-dir.ts";

/** A file system of its own in memory, that can be full. Needs root. */
export class Tmpfs {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** @param options as mount takes them: `size=8m`, `size=64m,nr_inodes=64` */
  static async mount(test: AfterTest, options: string): Promise<Tmpfs> {
    const path = join(await tempDir(test), "mount");
    await mkdir(path);
    await runCommand("mount", ["-t", "tmpfs", "-o", options, "tmpfs", path]);
    releaseAfter(test, () => runCommand("umount", ["--lazy", path]));
    return new Tmpfs(path);
  }

  /** `ro`, `rw`, `size=64m` … while it is in use. */
  async remount(options: string): Promise<void> {
    await runCommand("mount", ["-o", `remount,${options}`, this.path]);
  }
}
