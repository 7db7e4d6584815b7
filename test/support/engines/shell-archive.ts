import { randomBytes } from "node:crypto";
import { chmod, copyFile, mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { AfterTest } from "../after-test.ts";
import { runCommand } from "../run-command.ts";
import { tempDir } from "../temp-dir.ts";

/**
 * Writes a root file system with the machine's static busybox and a file of random bytes, so that no
 * registry has its layer.
 *
 * @returns path of the archive, for `docker import` and `podman import`
 */
export async function writeShellArchive(
  test: AfterTest,
  payloadBytes = 100_000,
): Promise<string> {
  const dir = await tempDir(test, "shell-");
  const root = join(dir, "root");
  await mkdir(join(root, "bin"), { recursive: true });
  await copyFile("/bin/busybox", join(root, "bin/busybox"));
  await chmod(join(root, "bin/busybox"), 0o755);
  await symlink("busybox", join(root, "bin/sh"));
  await writeFile(join(root, "payload.bin"), randomBytes(payloadBytes));
  const archive = join(dir, "root.tar");
  await runCommand("tar", ["-C", root, "-cf", archive, "."]);
  return archive;
}
