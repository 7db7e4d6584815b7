import { readdir, readFile } from "node:fs/promises";
import { join, relative } from "node:path";
import type { MirrorAddress } from "./engine.ts";

/** Where the files lie that users copy to point their engines at the mirror. */
export const CLIENT_FILES = join(
  import.meta.dirname,
  "../../../deploy/clients",
);

/** The mirror's address in each of them. */
export const EXAMPLE_ADDRESS = "mirror.internal:5000";

/**
 * Reads a file of `deploy/clients`, with the address of a mirror that runs.
 *
 * @param path as in `docker/daemon.json`
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

/** What a user changes in them for a mirror with TLS: `https`, and no leave to go without. */
function overTls(text: string): string {
  return text
    .replaceAll("http://", "https://")
    .replaceAll("insecure = true\n", "")
    .replace(/"insecure-registries": \[[^\]]*\]/, '"insecure-registries": []');
}

/** Their paths, as in `docker/daemon.json`. */
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
