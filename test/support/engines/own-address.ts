import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type AfterTest, releaseAfter } from "../after-test.ts";
import { runCommand } from "../run-command.ts";

/** Folders in which Docker and the containers tools expect the authorities of one registry. */
const CERTIFICATE_FOLDERS = {
  docker: "/etc/docker/certs.d",
  containers: "/etc/containers/certs.d",
} as const;

/**
 * Adds an address outside of 127.0.0.0/8 to the loopback until the test ends, because engines accept
 * any certificate from 127.0.0.0/8. It is from the range for benchmarks (RFC 2544); no other machine
 * can reach it.
 */
export async function takeOwnAddress(test: AfterTest): Promise<string> {
  const address = `198.18.${(process.pid >> 8) & 255}.${process.pid & 255 || 1}`;
  const change = (what: string): Promise<unknown> =>
    runCommand("ip", ["address", what, `${address}/32`, "dev", "lo"]);
  await change("add");
  releaseAfter(test, () => change("del"));
  return address;
}

/**
 * Makes an engine trust an authority as its users do: by `ca.crt` in a folder with the registry's name.
 *
 * @param registry for example `198.18.0.1:5000`
 */
export async function trustAuthority(
  test: AfterTest,
  engine: keyof typeof CERTIFICATE_FOLDERS,
  registry: string,
  certificate: string,
): Promise<void> {
  const folder = join(CERTIFICATE_FOLDERS[engine], registry);
  await mkdir(folder, { recursive: true });
  releaseAfter(test, () => rm(folder, { recursive: true }));
  await writeFile(join(folder, "ca.crt"), certificate);
}
