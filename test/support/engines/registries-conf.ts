import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readClientFile } from "./client-files.ts";
import type { MirrorAddress } from "./engine.ts";

/**
 * Writes the `registries.conf` that podman, buildah, CRI-O and skopeo share. It maps each registry to
 * a path of the mirror whose first component is the registry's name.
 *
 * @returns path of the file
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
