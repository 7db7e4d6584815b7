import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { MirrorAddress } from "./engine.ts";

/**
 * Writes the `registries.conf` that podman, buildah, CRI-O and skopeo share: Docker Hub by the
 * bare mirror, another registry by its name as the first component of the path.
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
    [
      'unqualified-search-registries = ["docker.io"]',
      entry("docker.io", mirror.host),
      entry("quay.io", `${mirror.host}/quay.io`),
    ].join("\n"),
  );
  return file;
}

function entry(registry: string, location: string): string {
  return [
    "[[registry]]",
    `prefix = "${registry}"`,
    `location = "${registry}"`,
    "[[registry.mirror]]",
    `location = "${location}"`,
    "insecure = true",
    "",
  ].join("\n");
}
