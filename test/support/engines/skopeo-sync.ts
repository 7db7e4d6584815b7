import { join } from "node:path";
import { writeFile } from "node:fs/promises";
import type { AfterTest } from "../after-test.ts";
import { tempDir } from "../temp-dir.ts";
import { type Programs, runProgram } from "./programs.ts";

/**
 * Returns the references that `skopeo sync --src yaml` would copy.
 *
 * @param programs with a skopeo of 1.14 or later: older ones ignore `images-by-semver`
 */
export async function selectBySkopeo(
  test: AfterTest,
  programs: Programs,
  list: string,
): Promise<string[]> {
  const file = join(await tempDir(test, "sync-"), "list.yaml");
  await writeFile(file, list);
  const { stderr } = await runProgram(programs, "skopeo", [
    "sync",
    "--dry-run",
    "--keep-going",
    "--src=yaml",
    "--dest=docker",
    file,
    "registry.invalid/copies",
  ]);
  return Array.from(
    stderr.matchAll(/from="docker:\/\/([^"]+)"/g),
    ([, reference = ""]) => reference,
  );
}
