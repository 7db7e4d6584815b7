import {
  type ClientFile,
  type ClientSetup,
  markedFile,
} from "./client-setup.ts";
import type { MirrorForClients } from "./mirror-for-clients.ts";

const FOLDER = "/etc/buildkit";
const CA_FILE = `${FOLDER}/entrepot.crt`;

/** BuildKit sends the registry's name as `?ns=` too, which covers names with a port. */
export function buildkitSetup(mirror: MirrorForClients): ClientSetup {
  const { scheme, host, ca, registries, hostedNames } = mirror;
  const sections = [
    ...registries.map(({ name, pathName }) =>
      mirrored(name, pathName === undefined ? host : `${host}/${pathName}`),
    ),
    ...hostedNames.map((name) =>
      mirrored(name, name.includes(":") ? host : `${host}/${name}`),
    ),
  ];
  const own = [
    ...(scheme === "http" ? ["  http = true\n"] : []),
    ...(ca === undefined ? [] : [`  ca = ["${CA_FILE}"]\n`]),
  ];
  if (own.length > 0 || mirror.needsClientCertificate) {
    sections.push(`[registry."${host}"]\n${own.join("")}`);
  }
  if (mirror.needsClientCertificate) {
    sections.push(`[[registry."${host}".keypair]]
  key = "${FOLDER}/entrepot-client.key"
  cert = "${FOLDER}/entrepot-client.crt"
`);
  }
  const files: ClientFile[] = [
    markedFile(
      `${FOLDER}/buildkitd.toml`,
      sections.join("\n"),
      `systemctl restart buildkit, or docker buildx create --buildkitd-config ${FOLDER}/buildkitd.toml`,
    ),
  ];
  if (ca !== undefined) files.push(markedFile(CA_FILE, ca));
  return { files, notes: buildkitNotes(mirror) };
}

function mirrored(name: string, location: string): string {
  return `[registry."${name}"]\n  mirrors = ["${location}"]\n`;
}

function buildkitNotes({
  host,
  templates,
  needsClientCertificate,
  needsLogin,
}: MirrorForClients): readonly string[] {
  const notes = templates.map(
    (template) =>
      `registries of the template ${template} are left out, because BuildKit has no pattern for registries; name them by --upstream`,
  );
  if (needsClientCertificate) {
    notes.push(
      `the mirror requires a client certificate: ${FOLDER}/entrepot-client.crt and entrepot-client.key`,
    );
  }
  if (needsLogin) {
    notes.push(
      `the mirror requires a log-in, which BuildKit takes from the client: docker login ${host}`,
    );
  }
  return notes;
}
