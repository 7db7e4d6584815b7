import {
  type ClientFile,
  type ClientSetup,
  markedFile,
  type MergedText,
} from "./client-setup.ts";
import type { MirrorForClients } from "./mirror-for-clients.ts";

const CERTS_D = "/etc/containerd/certs.d";
const CONFIG_TOML = "/etc/containerd/config.toml";
const CA_FILE = "/etc/containerd/entrepot.crt";
const CLIENT_CERTIFICATE = "/etc/containerd/entrepot-client.crt";
const CLIENT_KEY = "/etc/containerd/entrepot-client.key";

const CONFIG_PATH = `[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "${CERTS_D}"
`;
const CONFIG_PATH_V3 = `[plugins."io.containerd.cri.v1.images".registry]
  config_path = "${CERTS_D}"
`;

/**
 * containerd sends the registry's name as `?ns=`, so that one file covers all registries. `_default`
 * has no server, and containerd then takes the registry itself; with `--only` it is the mirror.
 */
export function containerdSetup(
  mirror: MirrorForClients,
  isOnly: boolean,
): ClientSetup {
  const { host, url, ca, registries, isChosen, hostedNames } = mirror;
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
  for (const name of [...hostedNames, host]) {
    folders.set(
      name,
      `server = "${url}"\n${tlsLines(mirror, "")}\n${section(mirror, '"pull", "resolve", "push"')}`,
    );
  }
  const files: ClientFile[] = [...folders].map(([name, text]) =>
    markedFile(`${CERTS_D}/${folderOf(name)}/hosts.toml`, text),
  );
  if (ca !== undefined) files.push(markedFile(CA_FILE, ca));
  files.push({
    path: CONFIG_TOML,
    text: `version = 2\n\n${CONFIG_PATH}`,
    merge: mergeConfigToml,
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
  return `${first}${section(mirror, '"pull", "resolve"')}`;
}

/** Keys outside of a section belong to the server. */
function only(mirror: MirrorForClients): string {
  return `server = "${mirror.url}"
capabilities = ["pull", "resolve"]
${tlsLines(mirror, "")}`;
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

/**
 * Leaves the file as it is: its text has other authors, and a table may stand only once in it. It is
 * complete if it names the folder.
 */
function mergeConfigToml(current: string): MergedText {
  const paths = [...current.matchAll(/^\s*config_path\s*=\s*["'](.*)["']/gm)]
    .flatMap(([, value = ""]) => value.split(":"))
    .map((path) => path.replace(/\/+$/, ""));
  if (paths.includes(CERTS_D)) return { isMerged: true, text: current };
  const isThird = /^\s*version\s*=\s*3\b/m.test(current);
  return {
    isMerged: false,
    flaw: `got no config_path of ${CERTS_D}; expected these lines, of which a table may stand only once in the file:\n${isThird ? CONFIG_PATH_V3 : CONFIG_PATH}`,
  };
}

function containerdNotes({
  needsClientCertificate,
  needsLogin,
  host,
}: MirrorForClients): readonly string[] {
  const notes = [
    `Kubernetes and nerdctl read ${CERTS_D}; ctr needs --hosts-dir ${CERTS_D}`,
  ];
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
