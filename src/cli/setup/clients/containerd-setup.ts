import {
  type ClientFile,
  type ClientSetup,
  markedFile,
} from "./client-setup.ts";
import { mergeConfigToml, newConfigToml } from "./containerd-toml.ts";
import type { MirrorForClients } from "./mirror-for-clients.ts";

const CERTS_D = "/etc/containerd/certs.d";
const CONFIG_TOML = "/etc/containerd/config.toml";
const CA_FILE = "/etc/containerd/entrepot.crt";
const PULL = '"pull", "resolve"';
const CLIENT_CERTIFICATE = "/etc/containerd/entrepot-client.crt";
const CLIENT_KEY = "/etc/containerd/entrepot-client.key";

/**
 * containerd sends the registry's name as `?ns=`, so that one file covers all registries. `_default`
 * has no server, and containerd then takes the registry itself; with `--only` it is the mirror.
 */
export function containerdSetup(
  mirror: MirrorForClients,
  isOnly: boolean,
): ClientSetup {
  const { host, ca, registries, isChosen, hostedNames } = mirror;
  const folders = new Map<string, string>();
  const docker = registries.find(({ name }) => name === "docker.io");
  const named = isChosen ? registries : docker === undefined ? [] : [docker];
  for (const { name, server } of named) {
    folders.set(name, isOnly ? only(mirror) : mirrored(mirror, server));
  }
  if (!isChosen) {
    folders.set(
      "_default",
      isOnly ? only(mirror) : mirrored(mirror, undefined),
    );
  }
  // A push has no ?ns=, and would go to the default registry.
  for (const name of hostedNames) folders.set(name, only(mirror));
  folders.set(host, own(mirror));
  const files: ClientFile[] = [...folders].map(([name, text]) =>
    markedFile(`${CERTS_D}/${folderOf(name)}/hosts.toml`, text),
  );
  if (ca !== undefined) files.push(markedFile(CA_FILE, ca));
  files.push({
    path: CONFIG_TOML,
    text: newConfigToml(CERTS_D),
    merge: (current) => mergeConfigToml(current, CERTS_D),
    restart: "systemctl restart containerd",
  });
  return { files, notes: containerdNotes(mirror) };
}

/** Returns containerd's spelling of a registry's name: `mirror.internal_5000_`. */
function folderOf(name: string): string {
  return name.replace(/:(\d+)$/, "_$1_");
}

function mirrored(
  mirror: MirrorForClients,
  server: string | undefined,
): string {
  const first = server === undefined ? "" : `server = "${server}"\n\n`;
  return `${first}${section(mirror, PULL)}`;
}

/**
 * The mirror as a host as well, because containerd 1.6 rejects a file without one. Keys outside of
 * its section belong to the server.
 */
function only(mirror: MirrorForClients): string {
  return `server = "${mirror.url}"
capabilities = [${PULL}]
${tlsLines(mirror, "")}
${section(mirror, PULL)}`;
}

/** The mirror by its own name. */
function own(mirror: MirrorForClients): string {
  return `server = "${mirror.url}"
${tlsLines(mirror, "")}
${section(mirror, '"pull", "resolve", "push"')}`;
}

function section(mirror: MirrorForClients, capabilities: string): string {
  return `[host."${mirror.url}"]
  capabilities = [${capabilities}]
${tlsLines(mirror, "  ")}`;
}

function tlsLines(
  { ca, needsClientCertificate }: MirrorForClients,
  indent: string,
): string {
  const lines: string[] = [];
  if (ca !== undefined) lines.push(`ca = "${CA_FILE}"`);
  if (needsClientCertificate) {
    lines.push(`client = [["${CLIENT_CERTIFICATE}", "${CLIENT_KEY}"]]`);
  }
  return lines.map((line) => `${indent}${line}\n`).join("");
}

function containerdNotes({
  hostedNames,
  needsClientCertificate,
  needsLogin,
  host,
}: MirrorForClients): readonly string[] {
  const notes = [
    `Kubernetes and nerdctl read ${CERTS_D}; ctr needs --hosts-dir ${CERTS_D}`,
  ];
  for (const name of hostedNames) {
    notes.push(
      `containerd maps ${name} for pulls only; push to ${host}/${name}/NAME:TAG`,
    );
  }
  if (needsClientCertificate) {
    notes.push(
      `the mirror requires a client certificate: ${CLIENT_CERTIFICATE} and ${CLIENT_KEY}`,
    );
  }
  if (needsLogin) {
    notes.push(
      `the mirror requires a log-in: a header in each hosts.toml, [host."…${host}".header] with Authorization = ["Basic …"]; keep those files from other users`,
    );
  }
  return notes;
}
