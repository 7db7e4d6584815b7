import {
  type ClientFile,
  type ClientSetup,
  markedFile,
} from "./client-setup.ts";
import type { MirrorForClients } from "./mirror-for-clients.ts";

export function k3sSetup(
  mirror: MirrorForClients,
  isOnly: boolean,
): ClientSetup {
  return rancherSetup(
    mirror,
    isOnly,
    "/etc/rancher/k3s",
    "systemctl restart k3s (k3s-agent on an agent)",
  );
}

export function rke2Setup(
  mirror: MirrorForClients,
  isOnly: boolean,
): ClientSetup {
  return rancherSetup(
    mirror,
    isOnly,
    "/etc/rancher/rke2",
    "systemctl restart rke2-server (rke2-agent on an agent)",
  );
}

function rancherSetup(
  mirror: MirrorForClients,
  isOnly: boolean,
  folder: string,
  restart: string,
): ClientSetup {
  const { host, url, ca, registries, templates, hostedNames } = mirror;
  const names = [
    ...registries.map(({ name }) => name),
    ...(templates.length > 0 ? ["*"] : []),
    ...hostedNames,
    host,
  ];
  const mirrors = [...new Set(names)].map(
    (name) => `  ${yamlKey(name)}:\n    endpoint: ["${url}"]\n`,
  );
  const caFile = `${folder}/entrepot.crt`;
  const tls = [
    ...(ca === undefined ? [] : [`      ca_file: ${caFile}\n`]),
    ...(mirror.needsClientCertificate
      ? [
          `      cert_file: ${folder}/entrepot-client.crt\n`,
          `      key_file: ${folder}/entrepot-client.key\n`,
        ]
      : []),
  ];
  const configs =
    tls.length === 0
      ? ""
      : `configs:\n  ${yamlKey(host)}:\n    tls:\n${tls.join("")}`;
  const text = `mirrors:\n${mirrors.join("")}${configs}`;
  const files: ClientFile[] = [
    markedFile(`${folder}/registries.yaml`, text, restart),
  ];
  if (isOnly) {
    files.push(
      markedFile(
        `${folder}/config.yaml.d/entrepot.yaml`,
        "disable-default-registry-endpoint: true\n",
        restart,
      ),
    );
  }
  if (ca !== undefined) files.push(markedFile(caFile, ca));
  return { files, notes: rancherNotes(mirror, folder) };
}

/** A name with a port is a plain key; one that begins with `*` or `[` is not. */
function yamlKey(name: string): string {
  return /^[a-z0-9]/.test(name) ? name : JSON.stringify(name);
}

function rancherNotes(
  { host, needsClientCertificate, needsLogin }: MirrorForClients,
  folder: string,
): readonly string[] {
  const notes: string[] = [];
  if (needsClientCertificate) {
    notes.push(
      `the mirror requires a client certificate: ${folder}/entrepot-client.crt and entrepot-client.key`,
    );
  }
  if (needsLogin) {
    notes.push(
      `the mirror requires a log-in: configs."${host}".auth with username and password in ${folder}/registries.yaml, mode 0600`,
    );
  }
  return notes;
}
