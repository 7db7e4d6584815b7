import { mkdir, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type AfterTest, releaseAfter } from "./after-test.ts";
import { runCommand } from "./run-command.ts";
import { tempDir } from "./temp-dir.ts";

/** An ext4 file system in a file, which can fail like a disk. Requires root. */
export class LoopDisk {
  readonly path: string;

  readonly #image: string;

  private constructor(path: string, image: string) {
    this.path = path;
    this.#image = image;
  }

  static async mount(test: AfterTest, sizeMib: number): Promise<LoopDisk> {
    const folder = await tempDir(test);
    const image = join(folder, "disk");
    const path = join(folder, "mount");
    await writeFile(image, "");
    await truncate(image, sizeMib * 1024 * 1024);
    await mkdir(path);
    await runCommand("mkfs.ext4", ["-q", "-m", "0", image]);
    await runCommand("mount", ["-o", "loop", image, path]);
    releaseAfter(test, () => runCommand("umount", ["--lazy", path]));
    return new LoopDisk(path, image);
  }

  /** Detaches the file system from its path, even if files are open. */
  async unmount(): Promise<void> {
    await runCommand("umount", ["--lazy", this.path]);
  }

  /** Mounts the same file system at the same path again. */
  async mountAgain(): Promise<void> {
    await runCommand("mount", ["-o", "loop", this.#image, this.path]);
  }

  /** Makes it read-only immediately, even with files open for writing, as the kernel does on errors. */
  async shutDown(): Promise<void> {
    await runCommand("mount", ["-o", "remount,abort", this.path]);
  }
}
