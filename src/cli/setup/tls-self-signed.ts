import { mkdir, rm, writeFile } from "node:fs/promises";
import { isIP } from "node:net";
import { join, resolve } from "node:path";
import type { Writable } from "node:stream";
import { makeSelfSignedCertificate } from "./self-signed-certificate.ts";
import { messageOf } from "../../telemetry/error-record.ts";

export interface TlsSelfSignedOptions {
  readonly hosts: readonly string[];
  /** A folder; relative to `cwd`. */
  readonly out: string;
  readonly cwd: string;
  readonly stdout: Writable;
  readonly stderr: Writable;
}

const DAY_MS = 86_400_000;
/** Some systems reject certificates with a longer validity. */
const VALID_DAYS = 825;
/** Clients' clocks may be slow. */
const BEFORE_MS = DAY_MS;

const NAME =
  /^(?:\*\.)?[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?)*$/;
const MAX_NAME_LENGTH = 253;

/**
 * Writes `tls.crt` and `tls.key` and prints where engines expect the certificate.
 *
 * @returns the exit code: 0; 1 if the files exist or cannot be written; 2 for an invalid host
 */
export async function runTlsSelfSigned(
  options: TlsSelfSignedOptions,
): Promise<number> {
  const { stdout, stderr } = options;
  const hosts = [...new Set(options.hosts.map(normaliseHost))];
  const flaw = hosts.find((host) => !isAddress(host) && !isName(host));
  if (flaw !== undefined) {
    stderr.write(
      `entrepot: --host: got ${JSON.stringify(flaw)}; expected a name such as mirror.internal or an address such as 192.0.2.1, without a port\n`,
    );
    return 2;
  }
  const folder = resolve(options.cwd, options.out);
  const certificateFile = join(folder, "tls.crt");
  const keyFile = join(folder, "tls.key");
  const nowMs = Date.now();
  const validTo = new Date(nowMs + VALID_DAYS * DAY_MS);
  const made = makeSelfSignedCertificate(
    hosts,
    new Date(nowMs - BEFORE_MS),
    validTo,
  );
  try {
    await mkdir(folder, { recursive: true });
    // Existing files may be in use, so they are never overwritten.
    await writeFile(keyFile, made.key, { flag: "wx", mode: 0o600 });
    try {
      const mode = 0o644;
      await writeFile(certificateFile, made.certificate, { flag: "wx", mode });
    } catch (error) {
      await rm(keyFile);
      throw error;
    }
  } catch (error) {
    const isThere =
      error instanceof Error && "code" in error && error.code === "EEXIST";
    stderr.write(
      isThere
        ? `entrepot: --out: got ${folder}, which has a tls.key or tls.crt; expected a folder without them\n`
        : `entrepot: ${messageOf(error)}\n`,
    );
    return 1;
  }
  stdout.write(directions(hosts, certificateFile, keyFile, validTo));
  return 0;
}

/** Removes the brackets of an address, as in a URL. */
function normaliseHost(host: string): string {
  return host.toLowerCase().replace(/^\[(.*)\]$/, "$1");
}

/** Rejects an address with a zone, as in `fe80::1%eth0`: zones are local to one machine. */
function isAddress(host: string): boolean {
  return isIP(host) !== 0 && !host.includes("%");
}

/** Digits and dots alone are an invalid address, not a name. */
function isName(host: string): boolean {
  return (
    host.length <= MAX_NAME_LENGTH && NAME.test(host) && !/^[0-9.]+$/.test(host)
  );
}

function directions(
  hosts: readonly string[],
  certificateFile: string,
  keyFile: string,
  validTo: Date,
): string {
  const [host = "HOST"] = hosts;
  const inUrl = isIP(host) === 6 ? `[${host}]` : host;
  const at = `${inUrl}:5000`;
  return `${certificateFile} and ${keyFile} are written for ${hosts.join(", ")}, valid until ${validTo.toISOString().slice(0, 10)}.

The mirror, in entrepot.yaml (a new pair takes effect without a restart):
  tls:
    certificateFile: ${certificateFile}
    keyFile: ${keyFile}

Each client needs tls.crt, never tls.key. With these keys in the configuration,
'entrepot client-config ENGINE' prints or installs the whole set-up of an engine. If the mirror
has another name or port than ${at}, write that instead.

dockerd:     /etc/docker/certs.d/${at}/ca.crt
             and in /etc/docker/daemon.json: "registry-mirrors": ["https://${at}"]
             With the containerd image store (the default since Docker 29) dockerd does not read
             this folder: add the certificate to the system's authorities.
podman, CRI-O, buildah, skopeo:
             /etc/containers/certs.d/${at}/ca.crt
containerd:  any file, named in /etc/containerd/certs.d/<registry>/hosts.toml:
               [host."https://${at}"]
                 capabilities = ["pull", "resolve"]
                 ca = "/etc/containerd/entrepot.crt"
`;
}
