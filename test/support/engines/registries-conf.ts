import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readClientFile } from "./client-files.ts";
import type { MirrorAddress } from "./engine.ts";

/**
 * Writes the `registries.conf` that podman, buildah, CRI-O and skopeo share: each registry by its
 * name as the first component of the path.
 *
 * @returns the file
 */
export async function writeRegistriesConf(
  dir: string,
  mirror: MirrorAddress,
): Promise<string> {
  const file = join(dir, "registries.conf");
  await writeFile(
    file,
    await readClientFile("containers/registries.conf", mirror),
  );
  return file;
}
