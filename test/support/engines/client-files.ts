import { readdir, readFile } from "node:fs/promises";
import { join, relative } from "node:path";
import type { MirrorAddress } from "./engine.ts";

/** Folder of the files that users copy to point their engines to the mirror. */
export const CLIENT_FILES = join(
  import.meta.dirname,
  "../../../deploy/clients",
);

/** Address of the mirror in each of these files. */
export const EXAMPLE_ADDRESS = "mirror.internal:5000";

/**
 * Reads a file of `deploy/clients` and replaces the address with that of a running mirror.
 *
 * @param path for example `docker/daemon.json`
 */
export async function readClientFile(
  path: string,
  mirror: MirrorAddress,
): Promise<string> {
  const text = await readFile(join(CLIENT_FILES, path), "utf8");
  if (!text.includes(EXAMPLE_ADDRESS)) {
    throw new Error(`${path} names no ${EXAMPLE_ADDRESS}`);
  }
  const fitting = mirror.isTls === true ? overTls(text) : text;
  return fitting.replaceAll(EXAMPLE_ADDRESS, mirror.host);
}

/** Applies a user's changes for a mirror with TLS: `https`, and plain HTTP no longer allowed. */
function overTls(text: string): string {
  return text
    .replaceAll("http://", "https://")
    .replaceAll("insecure = true\n", "")
    .replace(/"insecure-registries": \[[^\]]*\]/, '"insecure-registries": []');
}

/** Lists the paths of the files, for example `docker/daemon.json`. */
export async function listClientFiles(): Promise<string[]> {
  const entries = await readdir(CLIENT_FILES, {
    recursive: true,
    withFileTypes: true,
  });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(CLIENT_FILES, join(entry.parentPath, entry.name)))
    .sort();
}
