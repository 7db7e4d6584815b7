import { readFile } from "node:fs/promises";
import { join } from "node:path";
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
  return text.replaceAll(EXAMPLE_ADDRESS, mirror.host);
}
